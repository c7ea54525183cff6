// Runs that begin with the weights of another model.
#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/conversion.h"
#include "launcher/exit_codes.h"
#include "launcher/start_weights.h"
#include "launcher/training_run.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/counting_file_system.h"
#include "tests/support/devices.h"
#include "tests/support/plain_model.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using testing::CountingFileSystem;
using ::testing::Each;
using ::testing::HasSubstr;
using testing::PlainModel;
using testing::PlainTensors;
using testing::RankWorld;
using testing::RunRanks;
using testing::TempDir;
using testing::Tensors;
using testing::TinyRun;

constexpr WeightStorage kStorages[] = {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                       WeightStorage::kBf16, WeightStorage::kBf16PlusFp32};

class StartFromTest : public ::testing::Test {
 protected:
  StartFromTest() {
    run_.options.train.start_from = source_.path();
    run_.options.optim.schedule.warmup_steps = 0;
  }

  // Opens the run on every rank without a step; what the ranks hold, or their refusals.
  struct Opened {
    Tensors tensors;
    double validation_loss = 0;
    std::vector<std::string> refusals;
  };
  static Opened Open(const RunOptions& given, int ranks, StartMode mode = StartMode::kResume,
                     Device device = {}) {
    Opened opened;
    std::mutex mutex;
    RunRanks(ranks, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world, device, static_cast<int>(given.parallel.tensor));
      RunOptions options = given;
      ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
      auto training = TrainingRun::Open(options, mode, world);
      if (!training.ok()) {
        const std::lock_guard<std::mutex> lock(mutex);
        opened.refusals.emplace_back(training.status().message());
        return;
      }
      const absl::StatusOr<ValidationSet> set =
          ValidationSet::Open(options.data.validation,
                              {.sequence_length = options.model.sequence_length,
                               .vocab_size = options.model.vocab_size},
                              /*sequences=*/12);
      ASSERT_TRUE(set.ok()) << set.status();
      const absl::StatusOr<Evaluation> evaluation =
          (*training)->trainer().Evaluate(&*set, set->size());
      ASSERT_TRUE(evaluation.ok()) << evaluation.status();
      const std::lock_guard<std::mutex> lock(mutex);
      opened.validation_loss = evaluation->MeanLoss();
      testing::CopyShards((*training)->trainer(), opened.tensors);
    });
    return opened;
  }
  std::string Refusal(int ranks = 2) {
    const Opened opened = Open(run_.options, ranks);
    EXPECT_EQ(opened.refusals.size(), static_cast<size_t>(ranks));
    EXPECT_THAT(opened.refusals, Each(opened.refusals.at(0)));
    EXPECT_FALSE(std::filesystem::exists(run_.options.train.run_dir)) << "something was changed";
    return opened.refusals.at(0);
  }

  // Trains to the last step; the loss of every step of this start.
  static std::vector<double> Losses(const RunOptions& given, int ranks) {
    std::vector<double> losses;
    RunRanks(ranks, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world, {}, static_cast<int>(given.parallel.tensor));
      RunOptions options = given;
      ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
      auto training = TrainingRun::Open(options, StartMode::kResume, world);
      ASSERT_TRUE(training.ok()) << training.status();
      const absl::StatusOr<int> exit_code = (*training)->Run();
      ASSERT_TRUE(exit_code.ok()) << exit_code.status();
      EXPECT_EQ(*exit_code, kExitDone);
    });
    const std::string lines = testing::ReadText(given.train.run_dir + "/metrics.jsonl");
    const std::string key = "\"loss_nats\":";
    for (size_t at = lines.find(key); at != std::string::npos; at = lines.find(key, at + 1)) {
      losses.push_back(std::stod(lines.substr(at + key.size())));
    }
    return losses;
  }

  PlainModel model_;
  TempDir source_;
  TinyRun run_{3};
};

// The values have 8 bits, which every storage keeps.
TEST_F(StartFromTest, ShardsOnAnyRanksInAnyStorageHoldWhatTheFilesHold) {
  const std::pair<const char*, int> kinds[] = {{"F32", 1}, {"BF16", 3}, {"F16", 2}};
  for (const auto& [type, num_files] : kinds) {
    const TempDir source;
    model_.Write(source.path(), type, num_files);
    run_.options.train.start_from = source.path();
    for (const int ranks : {1, 2, 3}) {
      for (const WeightStorage storage : kStorages) {
        SCOPED_TRACE(std::to_string(ranks) + " ranks, " + type + ", " + EnumName(storage));
        run_.options.optim.weights = storage;
        const Opened opened = Open(run_.options, ranks);
        ASSERT_THAT(opened.refusals, ::testing::IsEmpty());
        size_t parameters = 0;
        for (const auto& [name, values] : opened.tensors) {
          if (name.find('|') != std::string::npos) {
            EXPECT_THAT(values, Each(0.0F)) << name << ": the optimizer begins fresh";
            continue;
          }
          ++parameters;
          ASSERT_EQ(model_.tensors.count(name), 1U) << name;
          EXPECT_EQ(values, model_.tensors.at(name).values) << name;
        }
        EXPECT_EQ(parameters, model_.tensors.size());
      }
    }
  }
}

// Two ranks have unequal parts of the 23 tokens, and share the only key/value head.
TEST_F(StartFromTest, SlicesOnAnyMeshHoldWhatTheFilesHold) {
  model_.Write(source_.path(), "BF16", 2);
  for (const auto& [ranks, tensor] : {std::pair(2, 2), {4, 2}, {6, 2}}) {
    for (const WeightStorage storage : kStorages) {
      SCOPED_TRACE(std::to_string(ranks) + " ranks, tensor " + std::to_string(tensor) + ", " +
                   EnumName(storage));
      run_.options.parallel.tensor = tensor;
      run_.options.optim.weights = storage;
      const Opened opened = Open(run_.options, ranks);
      ASSERT_THAT(opened.refusals, ::testing::IsEmpty());
      for (const auto& [name, tensor_of_file] : model_.tensors) {
        EXPECT_EQ(opened.tensors.at(name), tensor_of_file.values) << name;
      }
    }
  }
}

// The blocks that the host makes come to a GPU as well.
TEST_F(StartFromTest, ShardsOnEveryDeviceHoldWhatTheFilesHold) {
  model_.Write(source_.path(), "BF16", 2);
  for (const Device device : testing::ComputeDevices()) {
    for (const WeightStorage storage : kStorages) {
      run_.options.optim.weights = storage;
      const Opened opened = Open(run_.options, 2, StartMode::kResume, device);
      ASSERT_THAT(opened.refusals, ::testing::IsEmpty());
      for (const auto& [name, tensor] : model_.tensors) {
        EXPECT_EQ(opened.tensors.at(name), tensor.values) << name << " on " << device;
      }
    }
  }
}

TEST_F(StartFromTest, EveryRankReadsItsShardAndNoMore) {
  model_.Write(source_.path(), "F32", 3);
  constexpr int kRanks = 3;
  std::vector<int64_t> read(kRanks);
  std::vector<int64_t> held(kRanks);
  RunRanks(kRanks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run_.options;
    ASSERT_EQ(options.Finish(kRanks), absl::OkStatus());
    MemoryLedger ledger;
    const std::unique_ptr<Trainer> trainer = testing::NewTrainer(options, world, ledger);
    CountingFileSystem files;
    const absl::StatusOr<WeightSource> source = OpenStartWeights(files, *world.host, options);
    ASSERT_TRUE(source.ok()) << source.status();
    files.bytes_read = 0;
    ASSERT_EQ(LoadStartWeights(files, world, trainer->instance(), *source), absl::OkStatus());
    const ParameterStore& params = trainer->instance().params();
    const auto rank = static_cast<size_t>(rank_world.rank());
    read[rank] = files.bytes_read;
    for (int g = 0; g < params.num_groups(); ++g) {
      for (const ShardSegment& segment : params.segments({g})) {
        held[rank] += 4 * segment.elements;
      }
    }
  });
  EXPECT_EQ(read, held);
  EXPECT_GT(held[0], 0);
}

TEST_F(StartFromTest, ANewRunAfterAConversionBeginsWithTheLossThatTheOldOneHadReached) {
  for (const WeightStorage storage : {WeightStorage::kFp32, WeightStorage::kBf16Plus8}) {
    for (const Tie tie : {Tie::kNone, Tie::kTied, Tie::kSwapHalves}) {
      SCOPED_TRACE(std::string(EnumName(storage)) + ", " + EnumName(tie));
      TinyRun old_run(3);
      old_run.options.optim.weights = storage;
      old_run.options.model.tie = tie;
      Losses(old_run.options, 2);
      const TempDir out;
      PosixFileSystem files;
      const absl::StatusOr<Conversion> converted =
          Convert(files, {.source = old_run.options.train.run_dir,
                          .output = out.File("model"),
                          .dtype = {},
                          .max_file_bytes = 4000});
      ASSERT_TRUE(converted.ok()) << converted.status();
      EXPECT_GT(converted->weight_files, 1);

      EXPECT_THAT(testing::ReadText(out.File("model/model.toml")),
                  HasSubstr(std::string("tie = \"") + EnumName(tie) + "\""));

      // Whatever layers read is in the loss, to the last bit.
      const double reached = Open(old_run.options, 2).validation_loss;
      RunOptions options = old_run.options;
      options.train.run_dir = out.File("run");
      for (const std::string& from : {CheckpointDirectory(old_run.options.train.run_dir, 3),
                                      old_run.options.train.run_dir, out.File("model")}) {
        options.train.start_from = from;
        const Opened begun = Open(options, 2);
        ASSERT_THAT(begun.refusals, ::testing::IsEmpty());
        EXPECT_EQ(begun.validation_loss, reached) << from;
      }
    }
  }
}

// The swapped head of a checkpoint is put together from the tables' rows of all ranks.
TEST_F(StartFromTest, WhatTensorRanksSaveIsWhatTheirLayersRead) {
  for (const Tie tie : {Tie::kNone, Tie::kSwapHalves}) {
    SCOPED_TRACE(EnumName(tie));
    TinyRun old_run(3);
    old_run.options.parallel.tensor = 2;
    old_run.options.model.tie = tie;
    Losses(old_run.options, 4);
    const double reached = Open(old_run.options, 4).validation_loss;
    const TempDir out;
    PosixFileSystem files;
    const absl::StatusOr<Conversion> converted =
        Convert(files, {.source = old_run.options.train.run_dir,
                        .output = out.File("model"),
                        .dtype = {},
                        .max_file_bytes = 4000});
    ASSERT_TRUE(converted.ok()) << converted.status();
    RunOptions options = old_run.options;
    options.train.run_dir = out.File("run");
    options.train.start_from = out.File("model");
    const Opened begun = Open(options, 4);
    ASSERT_THAT(begun.refusals, ::testing::IsEmpty());
    EXPECT_EQ(begun.validation_loss, reached);
    // For others the swapped head is a matrix of its own.
    options.parallel.tensor = 1;
    const Opened alone = Open(options, 1);
    ASSERT_THAT(alone.refusals, ::testing::IsEmpty());
    EXPECT_NEAR(alone.validation_loss, reached, 1e-5 * reached);
  }
}

TEST_F(StartFromTest, AResumedRunNeedsTheSourceNoMore) {
  model_.Write(source_.path(), "BF16", 2);
  RunOptions straight = run_.options;
  straight.train.run_dir = run_.directory() + "/straight";
  straight.train.steps = 3;
  straight.checkpoint.every = 2;
  const std::vector<double> expected = Losses(straight, 1);
  ASSERT_EQ(expected.size(), 3U);

  std::filesystem::remove_all(straight.train.run_dir + "/checkpoints/step_00000003");
  std::filesystem::remove_all(source_.path());

  EXPECT_EQ(Losses(straight, 1), expected);
}

TEST_F(StartFromTest, AResumedRunRefusesAnotherSource) {
  model_.Write(source_.path(), "BF16", 1);
  run_.options.train.steps = 1;
  Losses(run_.options, 1);
  run_.options.train.start_from = "elsewhere";
  EXPECT_THAT(Open(run_.options, 1).refusals,
              Each(AllOf(HasSubstr("train.start_from: \"" + source_.path() + "\""),
                         HasSubstr("-> \"elsewhere\""), HasSubstr("--fresh"))));
}

TEST_F(StartFromTest, AFreshRunReadsTheSourceAgain) {
  model_.Write(source_.path(), "F32", 1);
  run_.options.train.steps = 1;
  Losses(run_.options, 1);
  const Opened opened = Open(run_.options, 2, StartMode::kFresh);
  EXPECT_EQ(opened.tensors.at("model.norm.weight"), model_.tensors.at("model.norm.weight").values);
}

TEST_F(StartFromTest, AnotherModelIsRefusedWithEveryKeyThatDiffers) {
  model_.config["rope_theta"] = "500000.0";
  run_.options.model.layers = 1;
  model_.Write(source_.path(), "F32", 1);
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("train.start_from: " + source_.path()),
                               HasSubstr("model.layers = 1, there 2"),
                               HasSubstr("model.rope_base = 10000.0, there 5e+05"),
                               HasSubstr("set these keys as there")));
}

TEST_F(StartFromTest, ADifferentTieIsRefused) {
  model_.Write(source_.path(), "F32", 1);
  run_.options.model.tie = Tie::kTied;
  EXPECT_THAT(Refusal(), HasSubstr("model.tie = \"tied\", there \"none\""));
}

TEST_F(StartFromTest, AHeadThatIsNotTheSwappedTableIsRefused) {
  run_.options.model.tie = Tie::kSwapHalves;
  PlainTensors& tensors = model_.tensors;
  const std::vector<float>& table = tensors["model.embed_tokens.weight"].values;
  std::vector<float>& head = tensors["lm_head.weight"].values;
  for (size_t i = 0; i < table.size(); ++i) {
    head[i] = table[i / 16 * 16 + (i + 8) % 16];
  }
  model_.Write(source_.path(), "BF16", 1);
  EXPECT_THAT(Open(run_.options, 2).refusals, ::testing::IsEmpty());

  std::filesystem::remove_all(run_.options.train.run_dir);
  head[20 * 16 + 3] += 1;
  model_.Write(source_.path(), "BF16", 1);
  EXPECT_THAT(Refusal(),
              AllOf(HasSubstr("row 20 of lm_head.weight"), HasSubstr("set model.tie = \"none\"")));
}

TEST_F(StartFromTest, ATensorTooFewTooManyOrOfAnotherShapeIsNamed) {
  const PlainModel good = model_;
  model_.tensors.erase("model.layers.1.mlp.up_proj.weight");
  model_.Write(source_.path(), "F32", 1);
  EXPECT_THAT(Refusal(), HasSubstr("has no tensor model.layers.1.mlp.up_proj.weight [24, 16]"));

  model_ = good;
  model_.tensors["model.layers.1.self_attn.q_proj.bias"] = {{16}, std::vector<float>(16)};
  model_.Write(source_.path(), "F32", 1);
  EXPECT_THAT(Refusal(), HasSubstr("has a tensor model.layers.1.self_attn.q_proj.bias [16]"));

  model_ = good;
  model_.tensors["model.norm.weight"] = {{2, 8}, std::vector<float>(16)};
  model_.Write(source_.path(), "F32", 1);
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("model.norm.weight [2, 8] should be [16]")));

  model_ = good;
  model_.config["tie_word_embeddings"] = "true";
  model_.Write(source_.path(), "F32", 1);
  run_.options.model.tie = Tie::kTied;
  EXPECT_THAT(Refusal(), HasSubstr("config.json says tie_word_embeddings = true"));
}

TEST_F(StartFromTest, ADamagedCheckpointIsNamed) {
  TinyRun old_run(1);
  old_run.options.optim.schedule.warmup_steps = 0;
  Losses(old_run.options, 1);
  const std::string directory = CheckpointDirectory(old_run.options.train.run_dir, 1);
  std::string bytes = testing::ReadText(directory + "/model.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  testing::WriteText(directory + "/model.safetensors", bytes);
  run_.options.train.start_from = directory;
  EXPECT_THAT(
      Open(run_.options, 2).refusals,
      Each(AllOf(HasSubstr("train.start_from: " + directory + "/model.safetensors is damaged"),
                 HasSubstr("use an older checkpoint"))));
}

TEST_F(StartFromTest, RotaryFrequenciesOfOldFilesAreNotNeeded) {
  model_.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{4}, {1, 1, 1, 1}};
  model_.Write(source_.path(), "F32", 1);
  EXPECT_THAT(Open(run_.options, 1).refusals, ::testing::IsEmpty());
}

TEST_F(StartFromTest, ANumberThatIsNotFiniteIsNamed) {
  model_.tensors["model.layers.0.mlp.down_proj.weight"].values[300] =
      std::numeric_limits<float>::infinity();
  model_.Write(source_.path(), "F32", 1);
  EXPECT_THAT(Open(run_.options, 2).refusals,
              Each(AllOf(HasSubstr("element 300 of tensor model.layers.0.mlp.down_proj.weight"),
                         HasSubstr("not finite"))));
}

}  // namespace
}  // namespace panthera
