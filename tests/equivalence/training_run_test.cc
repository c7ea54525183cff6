// How a run begins, ends and goes on: stop requests, damaged and not finite checkpoints, refusals.
#include "launcher/training_run.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "launcher/exit_codes.h"
#include "launcher/run_directory.h"
#include "runtime/comm/self_communicator.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kNever = -1;

// When which rank is asked to stop, in steps of this start.
struct StopAfter {
  int64_t steps = kNever;
  int rank = 0;
};

struct Outcome {
  std::vector<absl::Status> refusals;  // of Open, by rank
  std::vector<int> exit_codes;         // of Run, by rank
  int64_t steps = 0;                   // that rank 0 took
  Tensors tensors;                     // what the ranks hold at the end
};

// What is done to a rank after each of its steps, counted in this start, before it is saved.
using Harm = std::function<void(int rank, int64_t step, Trainer& trainer)>;

Outcome Start(const TinyRun& run, int ranks, StartMode mode, StopAfter stop,
              const Harm& harm = {}) {
  Outcome outcome;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world, {}, static_cast<int>(run.options.parallel.tensor));
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training = TrainingRun::Open(options, mode, world);
    if (!training.ok()) {
      const std::lock_guard<std::mutex> lock(mutex);
      outcome.refusals.push_back(training.status());
      return;
    }
    int64_t steps = 0;
    const absl::StatusOr<int> exit_code = (*training)->Run([&] {
      ++steps;
      if (harm) {
        harm(rank_world.rank(), steps, (*training)->trainer());
      }
      return rank_world.rank() == stop.rank && steps == stop.steps;
    });
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    const std::lock_guard<std::mutex> lock(mutex);
    outcome.exit_codes.push_back(*exit_code);
    if (rank_world.rank() == 0) {
      outcome.steps = steps;
    }
    testing::CopyShards((*training)->trainer(), outcome.tensors);
  });
  return outcome;
}

Outcome Resume(const TinyRun& run, int ranks = 1, StopAfter stop = {}) {
  return Start(run, ranks, StartMode::kResume, stop);
}

// The message with which all of `ranks` ranks refuse to start.
std::string Refusal(const TinyRun& run, int ranks, StartMode mode = StartMode::kResume) {
  const Outcome outcome = Start(run, ranks, mode, {});
  EXPECT_EQ(outcome.refusals.size(), static_cast<size_t>(ranks));
  EXPECT_THAT(outcome.refusals, Each(outcome.refusals.at(0)));
  return std::string(outcome.refusals.at(0).message());
}

// The numbers of a key in metrics.jsonl, in order.
std::vector<double> NumbersOf(const std::string& metrics, const std::string& key) {
  std::vector<double> numbers;
  const std::string start = "\"" + key + "\":";
  for (size_t at = metrics.find(start); at != std::string::npos; at = metrics.find(start, at + 1)) {
    numbers.push_back(std::stod(metrics.substr(at + start.size())));
  }
  return numbers;
}

std::vector<double> LossesOf(const TinyRun& run) {
  PosixFileSystem files;
  return NumbersOf(*ReadFile(files, run.options.train.run_dir + "/metrics.jsonl"), "loss_nats");
}

class TrainingRunTest : public ::testing::Test {
 protected:
  std::string RunFile(const std::string& name) const {
    return run_.options.train.run_dir + "/" + name;
  }
  std::string CheckpointFile(int64_t step, const std::string& name) const {
    return CheckpointDirectory(run_.options.train.run_dir, step) + "/" + name;
  }

  void FlipLastBit(const std::string& path) {
    std::string contents = *ReadFile(files_, path);
    contents.back() = static_cast<char>(contents.back() ^ 1);
    ASSERT_EQ(WriteFile(files_, path, contents), absl::OkStatus());
  }

  // As a save of infinite values would have marked it.
  void MarkNotFinite(int64_t step) {
    const std::string path = CheckpointFile(step, "manifest.json");
    Manifest manifest = *ParseManifest(*ReadFile(files_, path));
    manifest.finite = false;
    ASSERT_EQ(WriteFile(files_, path, ManifestJson(manifest)), absl::OkStatus());
  }

  TinyRun run_{6};
  PosixFileSystem files_;
};

TEST_F(TrainingRunTest, AStopRequestOnOneRankMakesAllRanksSaveAndStop) {
  const TinyRun straight(6);
  const Tensors expected = Resume(straight, 3).tensors;

  const Outcome stopped = Resume(run_, 3, {.steps = 2, .rank = 1});

  EXPECT_EQ(stopped.exit_codes, std::vector<int>(3, kExitStoppedBySignal));
  EXPECT_EQ(stopped.steps, 2);
  const Outcome resumed = Resume(run_, 3);
  EXPECT_EQ(resumed.exit_codes, std::vector<int>(3, kExitDone));
  EXPECT_EQ(resumed.steps, 4);
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(resumed.tensors, expected);
}

// Steps that were taken on one mesh are followed by those of another, with the losses of one rank
// all along: a rate of 1 % keeps ten steps within 1 % (TensorMeshesTest).
TEST_F(TrainingRunTest, AStopRequestOnATensorRankLetsAnyOtherMeshGoOn) {
  TinyRun straight(6);
  straight.options.model.heads = 4;
  Resume(straight);
  const std::vector<double> expected = LossesOf(straight);
  ASSERT_EQ(expected.size(), 6U);
  run_.options.model.heads = 4;
  run_.options.parallel.tensor = 2;
  EXPECT_EQ(Resume(run_, 4, {.steps = 2, .rank = 3}).exit_codes,
            std::vector<int>(4, kExitStoppedBySignal));
  struct Start {
    int ranks;
    int tensor;
    const char* change;
  };
  for (const Start& start : {Start{4, 4, "parallel.tensor: 2 -> 4"},
                             Start{4, 1, "parallel.tensor: 4 -> 1"}, Start{6, 2, "1 -> 2"}}) {
    run_.options.parallel.tensor = start.tensor;
    ::testing::internal::CaptureStderr();
    const Outcome outcome = Resume(run_, start.ranks, {.steps = 1});
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                HasSubstr(std::string("changed since the last start: ") +
                          (start.ranks == 6 ? "parallel.tensor: " : "") + start.change));
    EXPECT_EQ(outcome.exit_codes,
              std::vector<int>(static_cast<size_t>(start.ranks), kExitStoppedBySignal));
  }
  run_.options.parallel.tensor = 1;
  EXPECT_EQ(Resume(run_).exit_codes, std::vector<int>{kExitDone});
  const std::vector<double> losses = LossesOf(run_);
  ASSERT_EQ(losses.size(), expected.size());
  for (size_t step = 0; step < expected.size(); ++step) {
    EXPECT_NEAR(losses[step], expected[step], 0.01 * expected[step]) << step;
  }
}

TEST_F(TrainingRunTest, AStopRequestInTheLastStepIsDone) {
  EXPECT_EQ(Resume(run_, 2, {.steps = 6}).exit_codes, std::vector<int>(2, kExitDone));
}

TEST_F(TrainingRunTest, ADamagedTensorMakesTheResumeLoadTheOlderCheckpoint) {
  const TinyRun straight(6);
  const Tensors expected = Resume(straight, 2).tensors;
  run_.options.checkpoint.every = 2;
  Resume(run_, 2, {.steps = 4});
  // The header is sound; only who reads the tensors finds the damage.
  FlipLastBit(CheckpointFile(4, "model.safetensors"));

  const Outcome resumed = Resume(run_, 2);

  EXPECT_EQ(resumed.exit_codes, std::vector<int>(2, kExitDone));
  EXPECT_EQ(resumed.steps, 4) << "from step 2 to step 6";
  EXPECT_EQ(resumed.tensors, expected);
}

TEST_F(TrainingRunTest, DamageInTheOnlyCheckpointIsRefused) {
  Resume(run_, 1, {.steps = 2});
  FlipLastBit(CheckpointFile(2, "model.safetensors"));

  EXPECT_THAT(Refusal(run_, 2), HasSubstr("model.safetensors is damaged"));
}

TEST_F(TrainingRunTest, ResumeGoesBackToTheNewestFiniteCheckpoint) {
  run_.options.checkpoint.every = 2;
  Resume(run_, 1, {.steps = 4});
  MarkNotFinite(4);

  const Outcome resumed = Resume(run_);

  EXPECT_EQ(resumed.exit_codes, std::vector<int>{kExitDone});
  EXPECT_EQ(resumed.steps, 4) << "from step 2 to step 6";
}

TEST_F(TrainingRunTest, ARunWithoutAFiniteCheckpointIsRefused) {
  Resume(run_, 1, {.steps = 2});
  MarkNotFinite(2);

  EXPECT_THAT(Refusal(run_, 1),
              AllOf(HasSubstr("step_00000002"), HasSubstr("not finite"), HasSubstr("--fresh")));
}

TEST_F(TrainingRunTest, SavedModelIsTheNewestFiniteOneUnlessAnotherIsNamed) {
  run_.options.checkpoint.every = 2;
  Resume(run_, 1, {.steps = 4});
  MarkNotFinite(4);
  SelfHostGroup host;
  const std::string& directory = run_.options.train.run_dir;

  EXPECT_EQ(OpenSavedModel(files_, host, directory, std::nullopt)->checkpoint.step(), 2);
  EXPECT_EQ(OpenSavedModel(files_, host, directory, 4)->checkpoint.step(), 4);
  EXPECT_EQ(OpenSavedModel(files_, host, CheckpointDirectory(directory, 4), std::nullopt)
                ->checkpoint.step(),
            4);
}

TEST_F(TrainingRunTest, AStepThatIsNotFiniteStopsAllRanksAndSavesNothing) {
  // The first update makes the sums of squares of the second step overflow.
  run_.options.optim.learning_rate = 1e30;
  run_.options.optim.schedule.warmup_steps = 0;
  run_.options.optim.nonfinite = NonFinitePolicy::kStop;
  run_.options.eval.every = 1;

  const Outcome diverged = Resume(run_, 2);

  EXPECT_EQ(diverged.exit_codes, std::vector<int>(2, kExitNotFinite));
  EXPECT_FALSE(std::filesystem::exists(RunFile("checkpoints")));
  const std::string metrics = *ReadFile(files_, RunFile("metrics.jsonl"));
  const std::string last_step = metrics.substr(metrics.find("{\"step\":2,"));
  EXPECT_THAT(last_step, HasSubstr("\"gradient_norm\":null")) << "it is on record";
  EXPECT_THAT(last_step, Not(HasSubstr("validation_loss"))) << "it was not evaluated";
}

// Half of 1 / 20 is a quarter of the initial deviation: 80% of normal numbers are larger.
TEST_F(TrainingRunTest, OutliersOfTheEmbeddingAreCountedInEveryLoggedStepAndToldOnce) {
  run_.options.optim.weight_decay = 20;
  run_.options.optim.lazy_rows = LazyRows::kOff;
  run_.options.log.every = 2;
  ::testing::internal::CaptureStderr();
  Resume(run_, 2);
  const std::string log = ::testing::internal::GetCapturedStderr();

  const std::string metrics = *ReadFile(files_, RunFile("metrics.jsonl"));
  const std::vector<double> shares = NumbersOf(metrics, "embedding_share");
  EXPECT_EQ(shares.size(), static_cast<size_t>(run_.options.train.steps / 2));
  EXPECT_THAT(shares, Each(AllOf(::testing::Gt(0.7), ::testing::Lt(0.9))));
  const size_t told = log.find("step 2: the largest component of the embedding is");
  ASSERT_NE(told, std::string::npos) << log;
  EXPECT_THAT(log.substr(told), HasSubstr("above half of 1 / optim.weight_decay = 0.05"));
  EXPECT_THAT(log.substr(told), HasSubstr("optim.lazy_rows = \"change\""));
  EXPECT_EQ(log.find("the largest component", told + 10), std::string::npos) << "told twice";
}

TEST_F(TrainingRunTest, OutliersOfATableOfItsOwnAreThoseOfItsOwnDecay) {
  run_.options.optim.table.optimizer = TableOptimizer::kAdamW;
  run_.options.optim.table.weight_decay = 20;
  run_.options.log.every = 2;
  ::testing::internal::CaptureStderr();
  Resume(run_, 2);
  const std::string log = ::testing::internal::GetCapturedStderr();

  const std::string metrics = *ReadFile(files_, RunFile("metrics.jsonl"));
  EXPECT_THAT(NumbersOf(metrics, "embedding_share"),
              Each(AllOf(::testing::Gt(0.7), ::testing::Lt(0.9))));
  EXPECT_THAT(log, HasSubstr("above half of 1 / optim.table_weight_decay = 0.05"));
  EXPECT_THAT(log, HasSubstr("a smaller optim.table_learning_rate slows their growth"));
}

// The text has 4,000 ids; a row of 16 elements is summed in double, its weights being fp32.
TEST_F(TrainingRunTest, RowsByFrequencyAreThoseOfPlainLoopsOnAnyNumberOfRanksAndAfterAResume) {
  run_.options.log.every = 2;
  run_.options.optim.weight_decay = 4;  // outliers are above 1/8
  std::vector<int32_t> ids(4000);
  run_.OpenData().sources()[0].Read(0, 4000, ids.data());
  for (const auto& [ranks, tensor] : {std::pair(1, 1), {3, 1}, {2, 2}, {4, 2}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, tensor " + std::to_string(tensor));
    run_.options.parallel.tensor = tensor;
    Start(run_, ranks, StartMode::kFresh, {.steps = 3});
    const Outcome outcome = Resume(run_, ranks);
    const std::vector<float>& table = outcome.tensors.at("model.embed_tokens.weight");
    std::map<int64_t, std::pair<int64_t, double>> expected;  // rows and squares by least count
    for (int32_t token = 0; token < 23; ++token) {
      const int64_t count = std::count(ids.begin(), ids.end(), token);
      int64_t from = 1;
      while (2 * from <= count) {
        from *= 2;
      }
      auto& [rows, squares] = expected[count == 0 ? 0 : from];
      ++rows;
      for (size_t i = 0; i < 16; ++i) {
        squares += std::pow(table[static_cast<size_t>(token) * 16 + i], 2);
      }
    }
    const std::string metrics = *ReadFile(files_, RunFile("metrics.jsonl"));
    ASSERT_EQ(NumbersOf(metrics, "embedding_max").size(), 3U);
    float largest = 0;
    int64_t outliers = 0;
    for (const float component : table) {
      largest = std::max(largest, std::abs(component));
      outliers += std::abs(component) > 0.125F ? 1 : 0;
    }
    EXPECT_EQ(NumbersOf(metrics, "embedding_max").back(), largest);
    EXPECT_GT(outliers, 0);
    EXPECT_EQ(NumbersOf(metrics, "embedding_share").back(),
              static_cast<double>(outliers) / static_cast<double>(table.size()));
    const nlohmann::json last = nlohmann::json::parse(
        metrics.substr(metrics.rfind('\n', metrics.size() - 2) + 1))["embedding_rows"];
    ASSERT_EQ(last.size(), expected.size());
    size_t at = 0;
    for (const auto& [from, rows] : expected) {
      EXPECT_EQ(last[at]["tokens_from"], from);
      EXPECT_EQ(last[at]["rows"], rows.first);
      EXPECT_NEAR(last[at]["rms"].get<double>(),
                  std::sqrt(rows.second / (16 * static_cast<double>(rows.first))), 1e-12);
      ++at;
    }
  }
}

TEST_F(TrainingRunTest, AnEmbeddingWithoutOutliersIsNotWarnedOf) {
  ::testing::internal::CaptureStderr();
  run_.options.log.every = 1;
  Resume(run_);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("largest component")));
  const std::vector<double> shares =
      NumbersOf(*ReadFile(files_, RunFile("metrics.jsonl")), "embedding_share");
  EXPECT_EQ(shares, std::vector<double>(static_cast<size_t>(run_.options.train.steps), 0.0));
}

TEST_F(TrainingRunTest, StepsBelowTheCheckpointAreRefused) {
  Resume(run_, 1, {.steps = 4});
  run_.options.train.steps = 3;

  EXPECT_THAT(Refusal(run_, 2), AllOf(HasSubstr("train.steps = 3"), HasSubstr("step 4")));
}

TEST_F(TrainingRunTest, DataThatChangedUnderTheSameNameIsRefusedAndNamed) {
  Resume(run_, 2, {.steps = 2});
  // As many ids in as many documents, but in another order: only the contents tell.
  const std::string path = run_.options.data.train[0].path + ".bin";
  std::string ids = *ReadFile(files_, path);
  std::rotate(ids.begin(), ids.begin() + 2, ids.end());
  ASSERT_EQ(WriteFile(files_, path, ids), absl::OkStatus());

  EXPECT_THAT(Refusal(run_, 2), AllOf(HasSubstr("data.train[0]: " + path),
                                      HasSubstr("another file"), HasSubstr("--fresh")));
  EXPECT_EQ(Start(run_, 2, StartMode::kFresh, {}).steps, 6);
}

TEST_F(TrainingRunTest, OtherValidationDataMayBeUsed) {
  run_.options.eval.every = 1;
  Resume(run_, 1, {.steps = 2});
  run_.options.data.validation[0].path = run_.options.data.train[0].path;

  EXPECT_EQ(Resume(run_).steps, 4);
}

TEST_F(TrainingRunTest, WhatAKilledSaveLeftIsRemovedAtTheNextStartUnlessThatIsRefused) {
  Resume(run_, 1, {.steps = 2});
  const std::string unfinished = CheckpointDirectory(run_.options.train.run_dir, 3) + ".tmp";
  ASSERT_EQ(files_.MakeDirectories(unfinished), absl::OkStatus());
  ASSERT_EQ(WriteFile(files_, unfinished + "/model.safetensors", "half"), absl::OkStatus());

  run_.options.train.seed += 1;
  Refusal(run_, 1);
  EXPECT_TRUE(std::filesystem::exists(unfinished));
  run_.options.train.seed -= 1;
  bool existed_after_a_step = true;
  RunRanks(1, [&](RankWorld& ranks) {
    World world = testing::WorldOf(ranks);
    RunOptions options = run_.options;
    ASSERT_EQ(options.Finish(1), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    // Asked after a step and before the save that ends the run, which would remove it in any case.
    ASSERT_TRUE((*training)
                    ->Run([&] {
                      existed_after_a_step = std::filesystem::exists(unfinished);
                      return true;
                    })
                    .ok());
  });
  EXPECT_FALSE(existed_after_a_step);
}

TEST_F(TrainingRunTest, ACheckpointOfANewerFormatIsNotTrainedOver) {
  run_.options.checkpoint.every = 2;
  Resume(run_, 1, {.steps = 4});
  const std::string path = CheckpointFile(4, "manifest.json");
  Manifest manifest = *ParseManifest(*ReadFile(files_, path));
  manifest.version = kManifestVersion + 1;
  ASSERT_EQ(WriteFile(files_, path, ManifestJson(manifest)), absl::OkStatus());

  EXPECT_THAT(Refusal(run_, 2),
              AllOf(HasSubstr("step_00000004"), HasSubstr("format version 2"), HasSubstr("newer")));
}

TEST_F(TrainingRunTest, ARunThatIsDoneChangesNothing) {
  Resume(run_);
  const std::string config = *ReadFile(files_, RunFile("config.toml"));
  const std::string metrics = *ReadFile(files_, RunFile("metrics.jsonl"));
  run_.options.log.every = 3;

  const Outcome again = Resume(run_);

  EXPECT_EQ(again.exit_codes, std::vector<int>{kExitDone});
  EXPECT_EQ(again.steps, 0);
  EXPECT_EQ(*ReadFile(files_, RunFile("config.toml")), config);
  EXPECT_EQ(*ReadFile(files_, RunFile("metrics.jsonl")), metrics);
}

TEST_F(TrainingRunTest, ARefusedFreshStartLeavesTheEarlierRunInItsPlace) {
  Resume(run_, 1, {.steps = 2});
  run_.options.data.train[0].path += "_missing";

  EXPECT_THAT(Refusal(run_, 2, StartMode::kFresh), HasSubstr("_missing"));
  EXPECT_TRUE(std::filesystem::exists(CheckpointFile(2, "manifest.json")));
  EXPECT_FALSE(std::filesystem::exists(RunFile("set_aside_1")));
}

TEST_F(TrainingRunTest, AFreshStartInALockedDirectoryLeavesTheRunInItsPlace) {
  Resume(run_, 1, {.steps = 2});
  const absl::StatusOr<RunLock> lock =
      RunLock::Acquire(run_.options.train.run_dir, LockHolder::ThisProcess());
  ASSERT_TRUE(lock.ok()) << lock.status();

  Refusal(run_, 2, StartMode::kFresh);

  EXPECT_TRUE(std::filesystem::exists(CheckpointFile(2, "manifest.json")));
}

TEST_F(TrainingRunTest, IdsOutsideTheVocabularyAreRefusedBeforeTheFirstStep) {
  run_.options.model.vocab_size = 20;

  EXPECT_THAT(Refusal(run_, 2), HasSubstr("outside the vocabulary"));
}

// The lowest bit of a byte in the middle.
void FlipBit(const Tensor& x) { x.bytes_data()[x.bytes() / 2] ^= std::byte{1}; }

// This rank's copy of the part of the embedding that `owner` updates.
Tensor EmbeddingOf(int owner, Trainer& trainer) {
  ModelInstance& instance = trainer.instance();
  const ParameterStore& params = instance.params();
  return params.group_values(params.group_of(instance.model().embedding())).Slice(owner, owner + 1);
}

Tensor AMomentum(Trainer& trainer) {
  Tensor momentum;
  trainer.optimizer().ForEachState(
      [&](const char* /*name*/, GroupId /*group*/, Tensor shard) { momentum = shard; });
  return momentum;
}

// A control plane that calls `before_call` before it sends anything.
class ObservedHostGroup final : public HostGroup {
 public:
  ObservedHostGroup(std::unique_ptr<HostGroup> group, std::function<void()> before_call)
      : group_(std::move(group)), before_call_(std::move(before_call)) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::vector<std::string> AllGather(const std::string& bytes) override {
    before_call_();
    return group_->AllGather(bytes);
  }
  std::string Broadcast(const std::string& bytes, int root) override {
    before_call_();
    return group_->Broadcast(bytes, root);
  }

 private:
  std::unique_ptr<HostGroup> group_;
  std::function<void()> before_call_;
};

class FlippedBitsTest : public TrainingRunTest {
 protected:
  FlippedBitsTest() {
    run_.options.train.check_every = 1;
    run_.options.checkpoint.every = 2;
  }

  // Every file of every checkpoint, with its contents.
  std::map<std::string, std::string> Checkpoints() {
    std::map<std::string, std::string> contents;
    const std::string directory = RunFile("checkpoints");
    if (std::filesystem::exists(directory)) {
      for (const auto& file : std::filesystem::recursive_directory_iterator(directory)) {
        if (file.is_regular_file()) {
          contents[file.path().string()] = *ReadFile(files_, file.path().string());
        }
      }
    }
    return contents;
  }

  // All ranks end with kExitFlippedBits; returns what was logged.
  std::string LogOfFlippedBits(int ranks, StopAfter stop, const Harm& harm) {
    ::testing::internal::CaptureStderr();
    const Outcome outcome = Start(run_, ranks, StartMode::kResume, stop, harm);
    std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(outcome.exit_codes, std::vector<int>(static_cast<size_t>(ranks), kExitFlippedBits))
        << log;
    return log;
  }
};

TEST_F(FlippedBitsTest, ABitThatFlipsOnOneRankEndsTheRunAndLeavesCheckpointsAsTheyWere) {
  // All that is to be saved is saved when the bit flips.
  run_.options.checkpoint.staging = CheckpointStaging::kNone;
  TinyRun straight(6);
  straight.options.checkpoint.every = 2;
  const Tensors expected = Resume(straight, 3).tensors;
  std::map<std::string, std::string> before;
  std::mutex mutex;

  const std::string log = LogOfFlippedBits(3, {}, [&](int rank, int64_t step, Trainer& trainer) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (rank == 1 && step == 3) {
      before = Checkpoints();
      FlipBit(EmbeddingOf(2, trainer));
    }
  });

  EXPECT_THAT(log, AllOf(HasSubstr("step 3: bits have flipped by themselves: the weights of group"),
                         HasSubstr("on rank 1 differ from those of the others"),
                         HasSubstr("goes on from the newest checkpoint, of step 2")));
  EXPECT_FALSE(before.empty());
  EXPECT_EQ(Checkpoints(), before);
  const Outcome resumed = Resume(run_, 3);
  EXPECT_EQ(resumed.exit_codes, std::vector<int>(3, kExitDone));
  EXPECT_EQ(resumed.steps, 4) << "from step 2 to step 6";
  EXPECT_EQ(resumed.tensors, expected);
}

TEST_F(FlippedBitsTest, ASaveLooksFirstInStepsBetweenChecks) {
  run_.options.train.check_every = 1000;
  const std::string log = LogOfFlippedBits(2, {}, [](int rank, int64_t step, Trainer& trainer) {
    if (rank == 1 && step == 2) {
      FlipBit(AMomentum(trainer));
    }
  });
  EXPECT_THAT(log, AllOf(HasSubstr("step 2: "), HasSubstr("the momentum of group"),
                         HasSubstr("on rank 1 changed after the update"),
                         HasSubstr("nothing was saved, and the same command begins anew")));
  EXPECT_THAT(Checkpoints(), ::testing::IsEmpty());
}

// Of a 2 x 2 mesh; ranks 1 and 3 hold the same slices.
TEST_F(FlippedBitsTest, ATensorRanksSliceIsLookedAtAndNamedByTheRankOfTheMesh) {
  run_.options.parallel.tensor = 2;
  EXPECT_THAT(LogOfFlippedBits(4, {},
                               [](int rank, int64_t step, Trainer& trainer) {
                                 if (rank == 3 && step == 1) {
                                   FlipBit(EmbeddingOf(0, trainer));
                                 }
                               }),
              AllOf(HasSubstr("step 1: "), HasSubstr("on ranks 1, 3 differ between ranks")));
  for (const int flipped : {0, 1, 2, 3}) {
    EXPECT_THAT(LogOfFlippedBits(4, {},
                                 [flipped](int rank, int64_t step, Trainer& trainer) {
                                   if (rank == flipped && step == 1) {
                                     FlipBit(AMomentum(trainer));
                                   }
                                 }),
                HasSubstr("on rank " + std::to_string(flipped) + " changed after the update"));
  }
  EXPECT_THAT(Checkpoints(), ::testing::IsEmpty());
}

TEST_F(FlippedBitsTest, AStopLooksAtReplicasBeforeItSaves) {
  run_.options.train.check_every = 1000;
  const std::string log =
      LogOfFlippedBits(2, {.steps = 1}, [](int rank, int64_t /*step*/, Trainer& trainer) {
        if (rank == 0) {
          FlipBit(EmbeddingOf(1, trainer));
        }
      });
  EXPECT_THAT(log, HasSubstr("on ranks 0, 1 differ between ranks"));
  EXPECT_THAT(Checkpoints(), ::testing::IsEmpty());
}

TEST_F(FlippedBitsTest, NobodyLooksWhereChecksAreOff) {
  run_.options.train.check_every = 0;
  const Outcome outcome =
      Start(run_, 2, StartMode::kResume, {}, [](int /*rank*/, int64_t /*step*/, Trainer& trainer) {
        EXPECT_EQ(trainer.replica_check(), nullptr);
        FlipBit(AMomentum(trainer));
      });
  EXPECT_EQ(outcome.exit_codes, std::vector<int>(2, kExitDone));
}

TEST_F(FlippedBitsTest, WhatChangesWhileItIsSavedIsFoundAndItsCheckpointNamed) {
  run_.options.checkpoint.staging = CheckpointStaging::kNone;
  const std::string half_saved = CheckpointDirectory(run_.options.train.run_dir, 4) + ".tmp";
  ::testing::internal::CaptureStderr();
  RunRanks(1, [&](RankWorld& ranks) {
    World world = testing::WorldOf(ranks);
    TrainingRun* running = nullptr;
    bool flipped = false;
    world.host = std::make_unique<ObservedHostGroup>(std::move(world.host), [&] {
      if (!flipped && std::filesystem::exists(half_saved)) {
        FlipBit(AMomentum(running->trainer()));
        flipped = true;
      }
    });
    RunOptions options = run_.options;
    ASSERT_EQ(options.Finish(1), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    running = training->get();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    EXPECT_EQ(*exit_code, kExitFlippedBits);
    EXPECT_TRUE(flipped);
  });
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("step 4: "), HasSubstr("the momentum of group"),
                    HasSubstr("remove " + CheckpointDirectory(run_.options.train.run_dir, 4))));
}

}  // namespace
}  // namespace panthera
