#include "optim/schedule.h"

#include <cmath>
#include <limits>
#include <numbers>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::HasSubstr;

ScheduleOptions Piecewise(std::vector<SchedulePoint> points) {
  ScheduleOptions options;
  options.kind = ScheduleKind::kPiecewise;
  options.points = std::move(points);
  return options;
}

TEST(PiecewiseScheduleTest, Row03OnePointAtZeroIsConstant) {
  const ScheduleOptions options = Piecewise({{0, 1}});
  for (const int64_t step : {0, 1, 1000}) {
    EXPECT_EQ(ScheduleFactor(options, step, 10), 1);
  }
}

// The schedule of the Tiger reference's documentation with one micro-step per optimizer step.
TEST(PiecewiseScheduleTest, Row03WarmsUpFromZeroAndFollowsTheCorners) {
  const ScheduleOptions options =
      Piecewise({{40000, 1}, {160000, 0.5}, {640000, 0.1}, {1280000, 0.01}});
  const struct {
    int64_t step;
    double factor;
  } table[] = {{0, 0},          {1, 1.0 / 40000}, {10000, 0.25},   {40000, 1},
               {100000, 0.75},  {160000, 0.5},    {400000, 0.3},   {640000, 0.1},
               {960000, 0.055}, {1280000, 0.01},  {99999999, 0.01}};
  for (const auto& row : table) {
    EXPECT_DOUBLE_EQ(ScheduleFactor(options, row.step, 2000000), row.factor) << row.step;
  }
}

TEST(PiecewiseScheduleTest, AFirstPointAtZeroReplacesTheWarmUp) {
  const ScheduleOptions options = Piecewise({{0, 0.5}, {4, 1}});
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 0, 9), 0.5);
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 1, 9), 0.625);
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 4, 9), 1);
}

ScheduleOptions Shape(ScheduleKind kind, int64_t warmup, int64_t decay, double final_factor) {
  ScheduleOptions options;
  options.kind = kind;
  options.warmup_steps = warmup;
  options.decay_steps = decay;
  options.final_factor = final_factor;
  return options;
}

// Warm-up 4, 13 steps: the peak is step 3, the end step 12, and halfway between them, at 7.5, the
// cosine is 0.
TEST(CosineScheduleTest, MatchesTheTable) {
  const ScheduleOptions options = Shape(ScheduleKind::kCosine, 4, 0, 0.2);
  const double table[] = {0.25, 0.5, 0.75, 1};
  for (int64_t step = 0; step < 4; ++step) {
    EXPECT_DOUBLE_EQ(ScheduleFactor(options, step, 13), table[step]);
  }
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 6, 13), 0.2 + 0.8 * 0.75);  // cos(pi / 3) = 1 / 2
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 9, 13), 0.2 + 0.8 * 0.25);
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 12, 13), 0.2);
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 50, 13), 0.2);
}

TEST(CosineScheduleTest, WithoutWarmUpTheFirstStepIsThePeakAndTheLastTheFinalFactor) {
  const ScheduleOptions options = Shape(ScheduleKind::kCosine, 0, 0, 0);
  EXPECT_EQ(ScheduleFactor(options, 0, 5), 1);
  EXPECT_DOUBLE_EQ(ScheduleFactor(options, 2, 5), 0.5);
  EXPECT_EQ(ScheduleFactor(options, 4, 5), 0);
  EXPECT_EQ(ScheduleFactor(options, 0, 1), 1) << "a run of one step";
}

TEST(CosineScheduleTest, NeverRisesAfterThePeak) {
  const ScheduleOptions options = Shape(ScheduleKind::kCosine, 10, 0, 0.1);
  for (int64_t step = 10; step < 105; ++step) {
    EXPECT_LE(ScheduleFactor(options, step, 100), ScheduleFactor(options, step - 1, 100));
  }
}

TEST(WarmupStableDecayScheduleTest, MatchesTheTable) {
  const ScheduleOptions options = Shape(ScheduleKind::kWarmupStableDecay, 2, 4, 0.2);
  const double table[] = {0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2};
  for (int64_t step = 0; step < 11; ++step) {
    EXPECT_DOUBLE_EQ(ScheduleFactor(options, step, 10), table[step]) << step;
  }
}

TEST(WarmupStableDecayScheduleTest, WithoutDecayItStaysConstant) {
  const ScheduleOptions options = Shape(ScheduleKind::kWarmupStableDecay, 0, 0, 0.2);
  for (int64_t step = 0; step < 12; ++step) {
    EXPECT_EQ(ScheduleFactor(options, step, 10), 1) << step;
  }
}

TEST(ValidateScheduleTest, AcceptsWhatFits) {
  EXPECT_TRUE(ValidateSchedule(Piecewise({{0, 1}}), 1).ok());
  EXPECT_TRUE(ValidateSchedule(Shape(ScheduleKind::kCosine, 10, 0, 0.1), 10).ok());
  EXPECT_TRUE(ValidateSchedule(Shape(ScheduleKind::kWarmupStableDecay, 4, 6, 0.1), 10).ok());
}

TEST(ValidateScheduleTest, NamesTheFieldAndTheFix) {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  ScheduleOptions warm_piecewise = Piecewise({{0, 1}});
  warm_piecewise.warmup_steps = 5;
  ScheduleOptions cosine_with_points = Shape(ScheduleKind::kCosine, 0, 0, 0.1);
  cosine_with_points.points = {{0, 1}};
  const struct {
    ScheduleOptions options;
    const char* message;
  } table[] = {
      {Piecewise({}), "points is empty"},
      {Piecewise({{5, 1}, {5, 2}}), "step 5 follows step 5"},
      {Piecewise({{5, 1}, {3, 2}}), "step 3 follows step 5"},
      {warm_piecewise, "warmup_steps is not used by kind = \"piecewise\""},
      {cosine_with_points, "points is not used by kind = \"cosine\""},
      {Shape(ScheduleKind::kCosine, 0, 3, 0.1), "set kind = \"warmup_stable_decay\""},
      {Shape(ScheduleKind::kCosine, 11, 0, 0.1), "warmup_steps (11)"},
      {Shape(ScheduleKind::kWarmupStableDecay, 5, 6, 0.1), "exceed the run's 10 steps"},
      {Shape(ScheduleKind::kWarmupStableDecay, 5, kHuge, 0.1), "exceed the run's 10 steps"},
  };
  for (const auto& row : table) {
    const absl::Status status = ValidateSchedule(row.options, 10);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(row.message));
  }
}

}  // namespace
}  // namespace panthera
