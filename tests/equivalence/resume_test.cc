// A resumed run is the run that was never interrupted.
#include <memory>
#include <mutex>
#include <string>

#include <gmock/gmock.h>

#include "launcher/exit_codes.h"
#include "launcher/training_run.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

// Runs from where the directory stands to `steps`, and returns what the ranks hold then.
Tensors TrainTo(const TinyRun& run, int64_t steps, int ranks, StartMode start) {
  Tensors tensors;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    options.train.steps = steps;
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, start, world);
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    EXPECT_EQ(*exit_code, kExitDone);
    const std::lock_guard<std::mutex> lock(mutex);
    testing::CopyShards((*training)->trainer(), tensors);
  });
  return tensors;
}

struct Variant {
  const char* name;
  Algorithm algorithm;
  Accumulation accumulate;
  WeightStorage weights;
  MomentumStorage momentum;
  Tie tie;
  int ranks;
};

class ResumeTest : public ::testing::TestWithParam<Variant> {
 protected:
  static void Configure(RunOptions& options) {
    const Variant& variant = GetParam();
    options.optim.algorithm = variant.algorithm;
    options.optim.accumulate = variant.accumulate;
    options.optim.weights = variant.weights;
    options.optim.momentum = variant.momentum;
    options.model.tie = variant.tie;
    // The course of the rate must not depend on where the run was cut.
    options.optim.schedule.kind = ScheduleKind::kPiecewise;
    options.optim.schedule.warmup_steps = 0;
    options.optim.schedule.points = {{.step = 4, .factor = 1}};
  }
};

INSTANTIATE_TEST_SUITE_P(
    Variants, ResumeTest,
    ::testing::Values(Variant{"TigerFp32", Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kNone, 1},
                      Variant{"TigerFp32OnThreeRanks", Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kTied, 3},
                      Variant{"TigerBf16Plus8OnTwoRanks", Algorithm::kTiger,
                              Accumulation::kGradient, WeightStorage::kBf16Plus8,
                              MomentumStorage::kBf16, Tie::kSwapHalves, 2},
                      Variant{"TigerBf16", Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kBf16, MomentumStorage::kBf16, Tie::kNone, 2},
                      Variant{"LionBf16PlusFp32", Algorithm::kLion, Accumulation::kGradient,
                              WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32, Tie::kNone, 2},
                      Variant{"AdamW", Algorithm::kAdamW, Accumulation::kGradient,
                              WeightStorage::kFp32, MomentumStorage::kFp32, Tie::kTied, 2}),
    [](const auto& test) { return test.param.name; });

TEST_P(ResumeTest, ResumedRunEqualsStraightRun) {
  TinyRun straight(6);
  TinyRun resumed(6);
  Configure(straight.options);
  Configure(resumed.options);

  const Tensors expected = TrainTo(straight, 6, GetParam().ranks, StartMode::kResume);
  TrainTo(resumed, 3, GetParam().ranks, StartMode::kResume);
  const Tensors actual = TrainTo(resumed, 6, GetParam().ranks, StartMode::kResume);

  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(actual, expected);
}

TEST_P(ResumeTest, AnotherNumberOfRanksHoldsTheSameTensors) {
  TinyRun run(3);
  Configure(run.options);
  const Tensors saved = TrainTo(run, 3, GetParam().ranks, StartMode::kResume);

  // Nothing is left to train, so what is loaded is what is held.
  for (const int ranks : {1, 2, 4}) {
    EXPECT_EQ(TrainTo(run, 3, ranks, StartMode::kResume), saved) << ranks << " ranks";
  }
}

TEST(FreshStartTest, BeginsAtStepZeroAndKeepsTheEarlierRun) {
  TinyRun run(2);
  const Tensors first = TrainTo(run, 2, 1, StartMode::kResume);

  const Tensors fresh = TrainTo(run, 2, 1, StartMode::kFresh);

  EXPECT_EQ(fresh, first) << "the same run from the same start";
  PosixFileSystem files;
  EXPECT_TRUE(
      files.List(run.options.train.run_dir + "/set_aside_1/checkpoints/step_00000002").ok());
}

TEST(ResumeRefusalTest, AnotherModelIsRefusedByName) {
  TinyRun run(2);
  TrainTo(run, 2, 1, StartMode::kResume);
  run.options.model.layers = 3;

  RunRanks(2, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(2), absl::OkStatus());
    const auto training = TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_FALSE(training.ok());
    EXPECT_THAT(std::string(training.status().message()),
                ::testing::AllOf(::testing::HasSubstr("model.layers: 2 -> 3"),
                                 ::testing::HasSubstr("--fresh")));
  });
}

}  // namespace
}  // namespace panthera
