// Any data-parallel communicator gives the same bits: processes under mpirun do what as many
// threads of one process do.
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "tests/equivalence/tiny_run.h"
#include "tests/support/mpi_test_main.h"

namespace panthera {
namespace {

using testing::MpiTestWorld;
using testing::RankWorld;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kSteps = 3;

// What one rank holds after a few steps, and what the steps reported.
struct Course {
  std::vector<double> losses;
  std::vector<double> norms;
  Tensors tensors;
};

Course TakeSteps(const TinyRun& run, RankWorld& rank_world) {
  World world = testing::WorldOf(rank_world);
  const std::unique_ptr<Trainer> trainer =
      testing::NewTrainer(run.options, world, rank_world.ledger());
  const DataLoader data = run.OpenData();
  Course course;
  for (int64_t step = 0; step < kSteps; ++step) {
    const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
    CHECK_OK(result.status());
    course.losses.push_back(result->loss_nats);
    course.norms.push_back(result->gradient_norm);
  }
  testing::CopyShards(*trainer, course.tensors);
  return course;
}

class MpiStepsTest : public ::testing::TestWithParam<std::tuple<Accumulation, WeightStorage>> {};

INSTANTIATE_TEST_SUITE_P(
    Storages, MpiStepsTest,
    ::testing::Combine(::testing::Values(Accumulation::kMomentum, Accumulation::kGradient),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                         WeightStorage::kBf16, WeightStorage::kBf16PlusFp32)));

TEST_P(MpiStepsTest, ProcessesDoWhatThreadsDo) {
  RankWorld& process = MpiTestWorld();
  TinyRun run(kSteps);
  run.options.train.global_batch = 24;
  run.options.optim.accumulate = std::get<0>(GetParam());
  run.options.optim.weights = std::get<1>(GetParam());

  const Course actual = TakeSteps(run, process);

  Course expected;
  std::mutex mutex;
  testing::RunRanks(process.size(), [&](RankWorld& thread) {
    const Course course = TakeSteps(run, thread);
    const std::lock_guard<std::mutex> lock(mutex);
    if (thread.rank() == process.rank()) {
      expected = course;
    }
  });
  EXPECT_EQ(actual.losses, expected.losses);
  EXPECT_EQ(actual.norms, expected.norms);
  EXPECT_FALSE(actual.tensors.empty());
  EXPECT_EQ(actual.tensors, expected.tensors);
  process.Meet();
}

// Whether the new weights travel between the processes or the directions of the step.
class MpiDirectionTest : public MpiStepsTest {};

INSTANTIATE_TEST_SUITE_P(
    Storages, MpiDirectionTest,
    ::testing::Combine(::testing::Values(Accumulation::kMomentum, Accumulation::kGradient),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                         WeightStorage::kBf16)));

TEST_P(MpiDirectionTest, Row27DirectionGatherEqualsWeightGather) {
  RankWorld& process = MpiTestWorld();
  TinyRun run(kSteps);
  run.options.train.global_batch = 24;
  run.options.optim.accumulate = std::get<0>(GetParam());
  run.options.optim.weights = std::get<1>(GetParam());
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion}) {
    run.options.optim.algorithm = algorithm;
    if (!OptimOptions(run.options.optim).Finish().ok()) {
      continue;
    }
    run.options.optim.publish = PublishMode::kWeights;
    const Course expected = TakeSteps(run, process);
    run.options.optim.publish = PublishMode::kDirection;
    const Course actual = TakeSteps(run, process);
    // Losses are those of all weights as the layers of this rank read them.
    EXPECT_EQ(actual.losses, expected.losses);
    EXPECT_EQ(actual.norms, expected.norms);
    EXPECT_FALSE(actual.tensors.empty());
    EXPECT_EQ(actual.tensors, expected.tensors);
  }
  process.Meet();
}

}  // namespace
}  // namespace panthera
