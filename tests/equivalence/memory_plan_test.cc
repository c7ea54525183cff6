// The plan is the truth: what a step on kMeta asks for is what a real run requests.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "launcher/config_file.h"
#include "launcher/training_checkpoint.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::TinyRun;

struct Variant {
  const char* name;
  int ranks;
  Algorithm algorithm;
  Accumulation accumulate;
  WeightStorage weights;
  Recompute recompute;
  Tie tie;
  TableOptimizer table = TableOptimizer::kSame;
  PublishMode publish = PublishMode::kWeights;
  int tensor = 1;  // of the ranks share each layer
};

class MemoryPlanTest : public ::testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(
    Variants, MemoryPlanTest,
    ::testing::Values(
        Variant{"Fp32Alone", 1, Algorithm::kTiger, Accumulation::kMomentum, WeightStorage::kFp32,
                Recompute::kNone, Tie::kNone},
        Variant{"Bf16Plus8OnThreeRanks", 3, Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, Recompute::kBlock, Tie::kTied},
        Variant{"AdamWOnTwoRanks", 2, Algorithm::kAdamW, Accumulation::kGradient,
                WeightStorage::kBf16PlusFp32, Recompute::kNone, Tie::kSwapHalves},
        Variant{"DirectionOnThreeRanks", 3, Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, Recompute::kNone, Tie::kNone, TableOptimizer::kSame,
                PublishMode::kDirection},
        Variant{"DirectionWithAdamWOnTheTable", 3, Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, Recompute::kNone, Tie::kNone, TableOptimizer::kAdamW,
                PublishMode::kDirection},
        Variant{"TigerAndAdamWOnThreeRanks", 3, Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, Recompute::kNone, Tie::kTied, TableOptimizer::kAdamW},
        Variant{"LionAndAdamWOnTwoRanks", 2, Algorithm::kLion, Accumulation::kGradient,
                WeightStorage::kFp32, Recompute::kNone, Tie::kNone, TableOptimizer::kAdamW},
        Variant{"TwoThatShareLayers", 2, Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, Recompute::kNone, Tie::kNone, TableOptimizer::kSame,
                PublishMode::kWeights, 2},
        Variant{"TwoTimesTwoThatShareLayers", 4, Algorithm::kTiger, Accumulation::kGradient,
                WeightStorage::kBf16Plus8, Recompute::kBlock, Tie::kSwapHalves,
                TableOptimizer::kSame, PublishMode::kDirection, 2},
        Variant{"ThreeThatShareLayers", 3, Algorithm::kAdamW, Accumulation::kGradient,
                WeightStorage::kBf16PlusFp32, Recompute::kNone, Tie::kTied, TableOptimizer::kSame,
                PublishMode::kWeights, 3}),
    [](const auto& test) { return test.param.name; });

// 23 tokens, 26 hidden features and 6 heads over 2 keys, of which neither 2, 3 nor 4 ranks get
// equal parts of all; logits of 5 rows at a time.
void UseUnevenSizes(ModelOptions& model) {
  model.width = 20;
  model.heads = 6;
  model.kv_heads = 2;
  model.head_width = 4;
  model.ffn_width = 26;
  model.head_chunk_rows = 5;
}

void ExpectPlanned(const StepPlan& plan, Trainer& trainer, const MemoryLedger& ledger) {
  EXPECT_EQ(ledger.total_bytes(), plan.total_bytes());
  for (int c = 0; c < kNumMemoryCategories; ++c) {
    const auto category = static_cast<MemoryCategory>(c);
    const int64_t arena = category == MemoryCategory::kActivations ? plan.arena_bytes : 0;
    EXPECT_EQ(ledger.bytes(category), plan.memory.bytes(category) + arena) << Name(category);
  }
  EXPECT_LE(trainer.instance().context().arena().peak_bytes(), plan.arena_bytes);
}

StepPlan PlanOf(RunOptions options, int ranks, int tensor_rank = 0) {
  CHECK_OK(options.Finish(ranks));
  absl::StatusOr<World> plan_world = PlanWorld(options.parallel, ranks, tensor_rank);
  CHECK_OK(plan_world.status());
  return Trainer::Plan(options, *plan_world, {});
}

AxisBytes BytesSent(const World& world) {
  return {world.data_parallel->bytes_sent(), world.tensor_parallel->bytes_sent()};
}

// Since `before`.
void ExpectSent(const StepPlan& plan, const World& world, const AxisBytes& before) {
  const AxisBytes now = BytesSent(world);
  EXPECT_EQ(now.data - before.data, plan.sent.data);
  EXPECT_EQ(now.tensor - before.tensor, plan.sent.tensor);
}

ValidationSet OpenValidation(const RunOptions& options) {
  absl::StatusOr<ValidationSet> set = ValidationSet::Open(
      options.data.validation,
      {.sequence_length = options.model.sequence_length, .vocab_size = options.model.vocab_size},
      0);
  CHECK_OK(set.status());
  return *std::move(set);
}

TEST_P(MemoryPlanTest, EqualsEveryByteThatARealRunRequests) {
  const Variant& variant = GetParam();
  TinyRun run(2);
  run.options.optim.algorithm = variant.algorithm;
  run.options.optim.accumulate = variant.accumulate;
  run.options.optim.weights = variant.weights;
  run.options.model.recompute = variant.recompute;
  run.options.model.tie = variant.tie;
  run.options.optim.table.optimizer = variant.table;
  run.options.optim.publish = variant.publish;
  run.options.parallel.tensor = variant.tensor;
  if (variant.tensor > 1) {
    UseUnevenSizes(run.options.model);
  }

  run.options.train.micro_batch = 2;

  RunRanks(variant.ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world, {}, variant.tensor);
    const StepPlan plan = PlanOf(run.options, variant.ranks, world.mesh.tensor_rank);
    const MemoryLedger& ledger = rank_world.ledger();
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    const AxisBytes sent_before = BytesSent(world);
    ASSERT_TRUE(trainer->TrainStep(0, &data).ok());
    ExpectSent(plan, world, sent_before);
    ExpectPlanned(plan, *trainer, ledger);

    // Every rank has two full batches, and one sequence more.
    const ValidationSet validation = OpenValidation(run.options);
    ASSERT_TRUE(trainer->Evaluate(&validation, 5 * world.mesh.data_size).ok());
    ExpectPlanned(plan, *trainer, ledger);

    PosixFileSystem files;
    ASSERT_EQ(SaveTraining(files, world, *trainer, run.options, {}, 1), absl::OkStatus());
    ExpectPlanned(plan, *trainer, ledger);
  });
}

// One step of `run` on `ranks` ranks requests and sends exactly what its plan says, on every rank.
void ExpectOneStepAsPlanned(const TinyRun& run, int ranks) {
  const auto tensor = static_cast<int>(run.options.parallel.tensor);
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world, {}, tensor);
    const StepPlan plan = PlanOf(run.options, ranks, world.mesh.tensor_rank);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    const AxisBytes sent_before = BytesSent(world);
    ASSERT_TRUE(trainer->TrainStep(0, &data).ok());
    ExpectSent(plan, world, sent_before);
    ExpectPlanned(plan, *trainer, rank_world.ledger());
  });
}

// Calls body(run) for every algorithm, accumulation, storage of weights and momentum and choice of
// recomputation that go together; how many these are.
int ForEachStorage(absl::FunctionRef<void(TinyRun&)> body) {
  int combinations = 0;
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW}) {
    for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
      for (int weights = 0; weights < 4; ++weights) {
        for (const MomentumStorage momentum : {MomentumStorage::kFp32, MomentumStorage::kBf16}) {
          for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
            TinyRun run(4);
            run.options.optim.algorithm = algorithm;
            run.options.optim.accumulate = accumulate;
            run.options.optim.weights = static_cast<WeightStorage>(weights);
            run.options.optim.momentum = momentum;
            run.options.model.recompute = recompute;
            run.options.train.micro_batch = 2;
            OptimOptions finished = run.options.optim;
            if (!finished.Finish().ok()) {
              continue;
            }
            SCOPED_TRACE(::testing::PrintToString(
                std::vector<int>{static_cast<int>(algorithm), static_cast<int>(accumulate), weights,
                                 static_cast<int>(momentum), static_cast<int>(recompute)}));
            body(run);
            ++combinations;
          }
        }
      }
    }
  }
  return combinations;
}

// Tiger has two accumulations, Lion and AdamW one.
constexpr int kStorages = (2 + 1 + 1) * 4 * 2 * 2;

TEST(MemoryPlanOfStoragesTest, EveryAlgorithmStorageAndRecomputationIsPlanned) {
  int calls = 0;
  EXPECT_EQ(
      ForEachStorage([&](const TinyRun& run) { ExpectOneStepAsPlanned(run, 1 + calls++ % 3); }),
      kStorages);
}

struct MeshSizes {
  int ranks;
  int tensor;
  bool even;
};

class MemoryPlanOfMeshesTest : public ::testing::TestWithParam<MeshSizes> {};

INSTANTIATE_TEST_SUITE_P(All, MemoryPlanOfMeshesTest,
                         ::testing::Values(MeshSizes{2, 2, true}, MeshSizes{2, 2, false},
                                           MeshSizes{4, 2, true}, MeshSizes{4, 2, false},
                                           MeshSizes{4, 4, true}, MeshSizes{4, 4, false}),
                         [](const auto& test) {
                           const MeshSizes& mesh = test.param;
                           return absl::StrCat(mesh.ranks / mesh.tensor, "x", mesh.tensor,
                                               mesh.even ? "Even" : "Uneven");
                         });

TEST_P(MemoryPlanOfMeshesTest, EveryAlgorithmStorageAndRecomputationIsPlanned) {
  const MeshSizes& mesh = GetParam();
  EXPECT_EQ(ForEachStorage([&](TinyRun& run) {
              run.options.parallel.tensor = mesh.tensor;
              run.options.train.global_batch = 8;
              ModelOptions& model = run.options.model;
              if (mesh.even) {
                model.heads = 4;
                model.kv_heads = 4;
                model.vocab_size = 24;
              } else {
                UseUnevenSizes(model);
              }
              ExpectOneStepAsPlanned(run, mesh.ranks);
            }),
            kStorages);
}

TEST(MemoryPlanOfStoragesTest, StepsThatTravelAsDirectionsArePlanned) {
  int combinations = 0;
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion}) {
    for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
      for (const WeightStorage weights :
           {WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16}) {
        TinyRun run(4);
        run.options.optim.algorithm = algorithm;
        run.options.optim.accumulate = accumulate;
        run.options.optim.weights = weights;
        run.options.optim.publish = PublishMode::kDirection;
        run.options.train.micro_batch = 2;
        if (!OptimOptions(run.options.optim).Finish().ok()) {
          continue;
        }
        SCOPED_TRACE(::testing::PrintToString(std::vector<int>{
            static_cast<int>(algorithm), static_cast<int>(accumulate), static_cast<int>(weights)}));
        ExpectOneStepAsPlanned(run, 1 + combinations % 3);
        ++combinations;
      }
    }
  }
  // Tiger has two accumulations, Lion one.
  EXPECT_EQ(combinations, (2 + 1) * 3);
}

struct Shipped {
  const char* name;
  int ranks;  // of which parallel.tensor share each layer
  // What the widths, and then the number of layers and the vocabulary, are divided by.
  int64_t narrower;
  int64_t shorter;
  int64_t micro_batch;
  int64_t micro_steps;
};

class ShippedConfigStepTest : public ::testing::TestWithParam<Shipped> {};

// The first three and the experiments as they are but for their batch; the others with the
// proportions of their layers, on fewer ranks.
INSTANTIATE_TEST_SUITE_P(
    All, ShippedConfigStepTest,
    ::testing::Values(Shipped{"quickstart", 2, 1, 1, 4, 3}, Shipped{"toy_1m", 1, 1, 1, 8, 2},
                      Shipped{"llama_124m", 1, 1, 1, 1, 1},
                      Shipped{"llama_1b_8gpu", 4, 16, 8, 2, 2},
                      Shipped{"llama_7b_64gpu", 3, 32, 16, 2, 2},
                      Shipped{"llama_70b_64gpu", 8, 64, 40, 2, 2},
                      Shipped{"llama_70b_1024gpu", 16, 64, 40, 1, 2},
                      Shipped{"experiments/outliers_tiger", 1, 1, 1, 4, 2},
                      Shipped{"experiments/outliers_tiger_table_rms", 2, 1, 1, 4, 2},
                      Shipped{"experiments/outliers_tiger_lazy_state", 2, 1, 1, 4, 2}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::replace(name.begin(), name.end(), '/', '_');
      return name;
    });

TEST_P(ShippedConfigStepTest, RequestsAndSendsWhatItsPlanSays) {
  const Shipped& shipped = GetParam();
  TinyRun text(4);
  TinyRun run(4);
  const std::string path = std::string(PANTHERA_CONFIGS) + "/" + shipped.name + ".toml";
  ASSERT_EQ(LoadConfig(path, {}, run.options), absl::OkStatus());
  ModelOptions& model = run.options.model;
  ASSERT_EQ(model.Finish(), absl::OkStatus());
  model.width /= shipped.narrower;
  model.head_width /= shipped.narrower;
  model.ffn_width /= shipped.narrower;
  model.sequence_length /= shipped.narrower;
  model.layers /= shipped.shorter;
  model.vocab_size /= shipped.shorter;
  run.options.train.micro_batch = shipped.micro_batch;
  run.options.train.global_batch =
      shipped.micro_batch * shipped.micro_steps * shipped.ranks / run.options.parallel.tensor;
  run.options.data.train = text.options.data.train;

  ExpectOneStepAsPlanned(run, shipped.ranks);
}

// Without a tensor axis every rank has equally long shards; with one, the first has the longest.
TEST(MemoryPlanOfCheckpointTest, HasTheCopyOfEveryRankOfAMesh) {
  for (const auto& [ranks, tensor] : std::vector<std::pair<int, int>>{{1, 1}, {3, 1}, {4, 2}}) {
    for (const Tie tie : {Tie::kNone, Tie::kSwapHalves}) {
      for (const CheckpointStaging staging : {CheckpointStaging::kCopy, CheckpointStaging::kNone}) {
        TinyRun run(2);
        run.options.parallel.tensor = tensor;
        run.options.model.tie = tie;
        run.options.checkpoint.staging = staging;
        RunRanks(ranks, [&, ranks = ranks, tensor = tensor](RankWorld& rank_world) {
          const StepPlan plan = PlanOf(run.options, ranks);
          World world = testing::WorldOf(rank_world, {}, tensor);
          const std::unique_ptr<Trainer> trainer =
              testing::NewTrainer(run.options, world, rank_world.ledger());
          const int64_t planned = plan.memory.bytes(MemoryCategory::kCheckpoint);
          const int64_t copy = rank_world.ledger().bytes(MemoryCategory::kCheckpoint);
          EXPECT_EQ(planned > 0, staging == CheckpointStaging::kCopy);
          EXPECT_LE(copy, planned);
          if (world.mesh.tensor_rank == 0) {
            ExpectPlanned(plan, *trainer, rank_world.ledger());
          }
          if (staging == CheckpointStaging::kCopy) {
            (void)CopyTraining(world, *trainer, run.options, 1);
            EXPECT_EQ(rank_world.ledger().bytes(MemoryCategory::kCheckpoint), copy);
          }
        });
      }
    }
  }
}

TEST(MemoryPlanOfCheckpointTest, HasRoomForTheHeadThatOthersExpect) {
  TinyRun run(2);
  run.options.model.tie = Tie::kSwapHalves;
  // A large table and little else: the head is what fills the arena.
  run.options.model.vocab_size = 20000;
  run.options.model.head_chunk_rows = 1;
  run.options.optim.accumulate = Accumulation::kGradient;
  RunRanks(2, [&](RankWorld& rank_world) {
    const StepPlan plan = PlanOf(run.options, 2);
    ASSERT_EQ(plan.arena_peak.size(), 1);
    EXPECT_STREQ(plan.arena_peak[0].name, "swapped head");
    World world = testing::WorldOf(rank_world);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    PosixFileSystem files;
    ASSERT_EQ(SaveTraining(files, world, *trainer, run.options, {}, 1), absl::OkStatus());
    ExpectPlanned(plan, *trainer, rank_world.ledger());
    EXPECT_EQ(trainer->instance().context().arena().used_bytes(), 0);
  });
}

// Of the ranks that share each layer the first needs the most.
TEST(ShippedConfigPlanTest, EveryConfigRunsAStepOnMetaForItsRanks) {
  std::vector<std::pair<std::string, int>> configs = {
      {"quickstart", 2},          {"toy_1m", 1},          {"llama_124m", 1},
      {"llama_1b_8gpu", 8},       {"llama_7b_64gpu", 64}, {"llama_70b_64gpu", 64},
      {"llama_70b_1024gpu", 1024}};
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(PANTHERA_CONFIGS) + "/experiments")) {
    configs.emplace_back("experiments/" + entry.path().stem().string(), 1);
  }
  for (const auto& [name, ranks] : configs) {
    RunOptions options;
    const std::string path = std::string(PANTHERA_CONFIGS) + "/" + name + ".toml";
    ASSERT_EQ(LoadConfig(path, {}, options), absl::OkStatus());
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    const Device target{ranks > 2 ? DeviceKind::kCuda : DeviceKind::kCpu, 0};
    int64_t first = 0;
    for (int tensor_rank = 0; tensor_rank < options.parallel.tensor; ++tensor_rank) {
      absl::StatusOr<World> world = PlanWorld(options.parallel, ranks, tensor_rank);
      ASSERT_TRUE(world.ok()) << name << ": " << world.status();
      const int64_t bytes = Trainer::Plan(options, *world, target).total_bytes();
      first = tensor_rank == 0 ? bytes : first;
      EXPECT_GT(bytes, 0) << name;
      EXPECT_LE(bytes, first) << name << ", tensor rank " << tensor_rank;
    }
  }
}

}  // namespace
}  // namespace panthera
