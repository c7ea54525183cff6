// Whole training steps on a GPU, real or emulated: against the CPU, in any order of threads and
// streams, on several ranks, saved and resumed.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "launcher/exit_codes.h"
#include "launcher/gemm_algorithm_file.h"
#include "launcher/training_run.h"
#include "runtime/math/gemm_algorithms.h"
#include "tests/equivalence/sample_sums.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::SampleSums;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kSteps = 5;
constexpr int64_t kSamples = 4;
constexpr double kBeta = 0.965;

struct Result {
  std::vector<double> losses;
  std::vector<double> norms;
  Tensors tensors;
};

Result Train(const TinyRun& run, Device device, int ranks, int64_t steps) {
  Result result;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world =
        testing::WorldOf(rank_world, device, static_cast<int>(run.options.parallel.tensor));
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    std::vector<double> losses;
    std::vector<double> norms;
    for (int64_t step = 0; step < steps; ++step) {
      const absl::StatusOr<StepResult> taken = trainer->TrainStep(step, &data);
      ASSERT_TRUE(taken.ok()) << taken.status();
      losses.push_back(taken->loss_nats);
      norms.push_back(taken->gradient_norm);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    result.losses = losses;
    result.norms = norms;
    testing::CopyShards(*trainer, result.tensors);
  });
  return result;
}

struct Variant {
  const char* name;
  Algorithm algorithm;
  Accumulation accumulate;
  WeightStorage weights;
  MomentumStorage momentum;
  Tie tie;
  Recompute recompute;
  TableOptimizer table = TableOptimizer::kSame;
  PublishMode publish = PublishMode::kWeights;
};

class GpuRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::vector<Device> devices = testing::ComputeDevices();
    if (devices.size() < 2) {
      GTEST_SKIP() << "no GPU, real or emulated";
    }
    gpu_ = devices.back();
    // Emulated threads are slow.
    run_.options.train.global_batch = kSamples;
  }

  Device gpu_;
  TinyRun run_{kSteps};
};

class GpuTrainingTest : public GpuRunTest, public ::testing::WithParamInterface<Variant> {
 protected:
  void SetUp() override {
    GpuRunTest::SetUp();
    const Variant& variant = GetParam();
    run_.options.optim.algorithm = variant.algorithm;
    run_.options.optim.accumulate = variant.accumulate;
    run_.options.optim.weights = variant.weights;
    run_.options.optim.momentum = variant.momentum;
    run_.options.optim.table.optimizer = variant.table;
    run_.options.optim.publish = variant.publish;
    run_.options.model.tie = variant.tie;
    run_.options.model.recompute = variant.recompute;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Variants, GpuTrainingTest,
    ::testing::Values(
        Variant{"TigerFp32", Algorithm::kTiger, Accumulation::kMomentum, WeightStorage::kFp32,
                MomentumStorage::kFp32, Tie::kNone, Recompute::kNone},
        Variant{"TigerBf16Plus8", Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, MomentumStorage::kBf16, Tie::kTied, Recompute::kBlock},
        Variant{"LionBf16", Algorithm::kLion, Accumulation::kGradient, WeightStorage::kBf16,
                MomentumStorage::kBf16, Tie::kNone, Recompute::kNone},
        Variant{"AdamWFp32", Algorithm::kAdamW, Accumulation::kGradient, WeightStorage::kFp32,
                MomentumStorage::kFp32, Tie::kSwapHalves, Recompute::kNone},
        Variant{"TigerAndAdamWBf16Plus8", Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, MomentumStorage::kBf16, Tie::kTied, Recompute::kNone,
                TableOptimizer::kAdamW},
        Variant{"TigerDirection", Algorithm::kTiger, Accumulation::kMomentum,
                WeightStorage::kBf16Plus8, MomentumStorage::kBf16, Tie::kNone, Recompute::kNone,
                TableOptimizer::kSame, PublishMode::kDirection}),
    [](const auto& test) { return test.param.name; });

// Products and sums have other orders there than here, and what is rounded to bf16 can fall to the
// other side: the runs drift apart, slowly.
TEST_P(GpuTrainingTest, FiveStepsAgreeWithTheCpu) {
  const Result cpu = Train(run_, Device{}, 1, kSteps);
  const Result gpu = Train(run_, gpu_, 1, kSteps);

  const bool is_fp32 = GetParam().weights == WeightStorage::kFp32;
  // Losses are means over 64 targets, whose roundings largely cancel: a rounding of the logits.
  const double unit = UnitRoundoff(is_fp32 ? DType::kF32 : DType::kBF16);
  ASSERT_EQ(gpu.losses.size(), cpu.losses.size());
  EXPECT_NEAR(gpu.losses[0], cpu.losses[0], 4 * unit * cpu.losses[0]);
  EXPECT_NEAR(gpu.norms[0], cpu.norms[0], 16 * unit * cpu.norms[0]);
  for (int64_t step = 1; step < kSteps; ++step) {
    const auto at = static_cast<size_t>(step);
    EXPECT_NEAR(gpu.losses[at], cpu.losses[at], 0.01 * cpu.losses[at]) << "step " << step;
  }
  EXPECT_LT(gpu.losses.back(), gpu.losses.front());
}

TEST_P(GpuTrainingTest, TwoRanksHoldTheirLossesAndWeightsInCommon) {
  const Result one = Train(run_, gpu_, 1, kSteps);
  const Result two = Train(run_, gpu_, 2, kSteps);
  const Result cpu = Train(run_, Device{}, 2, kSteps);

  // The same samples, each alone in its micro-batch, whose losses are added in another order.
  EXPECT_NEAR(two.losses[0], one.losses[0], 1e-12 * one.losses[0]);
  for (int64_t step = 1; step < kSteps; ++step) {
    const auto at = static_cast<size_t>(step);
    EXPECT_NEAR(two.losses[at], cpu.losses[at], 0.01 * cpu.losses[at]) << "step " << step;
  }
}

// As RanksTest does for CPUs.
TEST_F(GpuRunTest, MomentumAfterOneStepIsThatOfTheWholeBatch) {
  const SampleSums sums = testing::SumOverFirstStep(run_);
  const Result cpu = Train(run_, Device{}, 1, 1);
  const Result gpu = Train(run_, gpu_, 2, 1);
  // A sample's gradient itself differs here by the roundings of a backward pass: some 30
  // operations, each a sum of at most a sequence's tokens or a row's elements, on either side, in
  // the norm.
  const double bound = 2 * 30 * 24 * UnitRoundoff(DType::kF32);
  int64_t compared = 0;
  for (const auto& [name, gradient] : sums.gradient) {
    const std::vector<float>& momentum = gpu.tensors.at(name + "|momentum");
    double difference = 0;
    double norm = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double expected = (1 - kBeta) * gradient[i] / kSamples;
      difference += (momentum[i] - expected) * (momentum[i] - expected);
      norm += expected * expected;
    }
    EXPECT_LT(std::sqrt(difference / norm), bound) << name;
    // Weights differ where the momentum's sign does: where it is within the difference of zero.
    for (size_t i = 0; i < gradient.size(); ++i) {
      if (std::abs((1 - kBeta) * gradient[i] / kSamples) > 2 * std::sqrt(difference)) {
        ASSERT_EQ(gpu.tensors.at(name)[i], cpu.tensors.at(name)[i]) << name << " " << i;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 3000) << "most weights were compared";
}

// Two ranks share the only key/value head, and each layer's 15 rows unequally.
TEST_F(GpuRunTest, TensorRanksTakeTheStepsOfOneRank) {
  run_.options.model.sequence_length = 15;
  run_.options.model.head_chunk_rows = 6;
  run_.options.optim.accumulate = Accumulation::kGradient;
  for (const WeightStorage weights : {WeightStorage::kFp32, WeightStorage::kBf16Plus8}) {
    SCOPED_TRACE(EnumName(weights));
    run_.options.optim.weights = weights;
    run_.options.parallel.tensor = 1;
    const Result one = Train(run_, gpu_, 1, 3);
    run_.options.parallel.tensor = 2;
    const Result two = Train(run_, gpu_, 2, 3);
    const double unit = UnitRoundoff(weights == WeightStorage::kFp32 ? DType::kF32 : DType::kBF16);
    // As in FiveStepsAgreeWithTheCpu.
    EXPECT_NEAR(two.losses[0], one.losses[0], 4 * unit * one.losses[0]);
    EXPECT_NEAR(two.norms[0], one.norms[0], 16 * unit * one.norms[0]);
    for (const size_t step : {1U, 2U}) {
      EXPECT_NEAR(two.losses[step], one.losses[step], 0.01 * one.losses[step]) << "step " << step;
    }
  }
}

Tensors TrainTo(const TinyRun& run, Device device, int64_t steps, int ranks, int tensor = 1) {
  Tensors tensors;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world, device, tensor);
    RunOptions options = run.options;
    options.train.steps = steps;
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    EXPECT_EQ(*exit_code, kExitDone);
    const std::lock_guard<std::mutex> lock(mutex);
    testing::CopyShards((*training)->trainer(), tensors);
  });
  return tensors;
}

TEST_P(GpuTrainingTest, ResumedRunEqualsStraightRun) {
  TinyRun resumed(kSteps);
  resumed.options.model = run_.options.model;
  resumed.options.optim = run_.options.optim;
  resumed.options.train.global_batch = run_.options.train.global_batch;
  for (TinyRun* run : {&run_, &resumed}) {
    run->options.optim.schedule.kind = ScheduleKind::kPiecewise;
    run->options.optim.schedule.warmup_steps = 0;
    run->options.optim.schedule.points = {{.step = 4, .factor = 1}};
    run->options.eval = {.every = 2, .sequences = 3};
  }
  const Tensors expected = TrainTo(run_, gpu_, 4, 2);
  // Bits are promised for equal algorithms; each run would measure which are fastest anew.
  std::filesystem::create_directories(resumed.options.train.run_dir);
  std::filesystem::copy(run_.options.train.run_dir + "/" + kGemmAlgorithmFileName,
                        resumed.options.train.run_dir);
  TrainTo(resumed, gpu_, 2, 2);
  const Tensors actual = TrainTo(resumed, gpu_, 4, 2);
  EXPECT_EQ(actual, expected);
  // Its checkpoint is a CPU's as well: nothing is left to do but to load it.
  EXPECT_EQ(TrainTo(resumed, Device{}, 4, 2), expected);
}

// Of what the ranks of a mesh multiply, which the first's products are not if layers are not shared
// evenly, and of what another mesh multiplies that goes on with the run.
TEST_F(GpuRunTest, ProductsOfEveryRankOfAnyMeshHaveAlgorithmsThatStay) {
  run_.options.model.heads = 3;
  run_.options.model.kv_heads = 3;
  run_.options.model.head_width = 8;
  const auto algorithms_after = [&](int64_t steps, int tensor) {
    run_.options.parallel.tensor = tensor;
    TrainTo(run_, gpu_, steps, 2, tensor);
    PosixFileSystem files;
    const absl::StatusOr<std::string> text =
        ReadFile(files, run_.options.train.run_dir + "/" + kGemmAlgorithmFileName);
    CHECK_OK(text.status());
    const absl::StatusOr<GemmAlgorithms> algorithms = ParseGemmAlgorithms(*text);
    CHECK_OK(algorithms.status());
    for (int rank = 0; rank < tensor; ++rank) {
      RunOptions options = run_.options;
      CHECK_OK(options.Finish(2));
      absl::StatusOr<World> world = PlanWorld(options.parallel, 2, rank);
      CHECK_OK(world.status());
      for (const Product& product : Trainer::Plan(options, *world, gpu_).products) {
        EXPECT_TRUE(algorithms->Find(product).has_value())
            << DescribeForm(product) << " of rank " << rank << " of " << tensor;
      }
    }
    return *algorithms;
  };
  const GemmAlgorithms shared = algorithms_after(2, 2);
  const GemmAlgorithms both = algorithms_after(3, 1);
  EXPECT_GT(both.size(), shared.size());
  GemmAlgorithms merged = shared;
  merged.Add(both);
  EXPECT_EQ(merged, both) << "an algorithm has changed";
}

// A step of two ranks, as the plan of each has it.
void ExpectPlanned(const TinyRun& run, Device gpu) {
  RunRanks(2, [&](RankWorld& rank_world) {
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(2), absl::OkStatus());
    World world = testing::WorldOf(rank_world, gpu, static_cast<int>(options.parallel.tensor));
    absl::StatusOr<World> plan_world = PlanWorld(options.parallel, 2, world.mesh.tensor_rank);
    ASSERT_TRUE(plan_world.ok());
    const StepPlan plan = Trainer::Plan(options, *plan_world, gpu);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    const int64_t data_before = world.data_parallel->bytes_sent();
    const int64_t tensor_before = world.tensor_parallel->bytes_sent();
    ASSERT_TRUE(trainer->TrainStep(0, &data).ok());
    EXPECT_LE(trainer->instance().context().arena().peak_bytes(), plan.arena_bytes);
    EXPECT_EQ(world.data_parallel->bytes_sent() - data_before, plan.sent.data);
    EXPECT_EQ(world.tensor_parallel->bytes_sent() - tensor_before, plan.sent.tensor);
    for (int c = 0; c < kNumMemoryCategories; ++c) {
      const auto category = static_cast<MemoryCategory>(c);
      const int64_t arena = category == MemoryCategory::kActivations ? plan.arena_bytes : 0;
      EXPECT_EQ(rank_world.ledger().bytes(category), plan.memory.bytes(category) + arena)
          << Name(category);
    }
  });
}

TEST_P(GpuTrainingTest, RequestsAndSendsWhatItsPlanSays) {
  run_.options.train.micro_batch = 2;
  ExpectPlanned(run_, gpu_);
}

TEST_F(GpuRunTest, TensorRanksRequestAndSendWhatTheirPlanSays) {
  run_.options.model.sequence_length = 15;
  run_.options.parallel.tensor = 2;
  ExpectPlanned(run_, gpu_);
}

}  // namespace
}  // namespace panthera
