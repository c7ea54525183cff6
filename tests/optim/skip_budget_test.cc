#include "optim/skip_budget.h"

#include <gtest/gtest.h>

namespace panthera {
namespace {

// Records steps, of which `is_bad` says whether something was not finite, until the budget is
// exceeded; returns the number of the step, counted from 1, or 0 if it never was.
template <typename IsBad>
int StepOfEnd(int64_t budget, const IsBad& is_bad) {
  SkipBudget skip_budget(budget);
  for (int step = 1; step <= 1000; ++step) {
    skip_budget.Record(is_bad(step));
    if (skip_budget.exceeded()) {
      return step;
    }
  }
  return 0;
}

TEST(SkipBudgetTest, ZeroEndsAtTheFirst) {
  EXPECT_EQ(StepOfEnd(0, [](int step) { return step == 7; }), 7);
}

TEST(SkipBudgetTest, ARunThatStaysNotFiniteEndsAfterTheBudget) {
  EXPECT_EQ(StepOfEnd(10, [](int step) { return step > 50; }), 61);
}

TEST(SkipBudgetTest, OneInEveryTenStepsIsJustWithinABudgetOfTen) {
  EXPECT_EQ(StepOfEnd(10, [](int step) { return step % 10 == 0; }), 0);
  EXPECT_EQ(StepOfEnd(10, [](int step) { return step % 9 == 0; }), 99);
}

TEST(SkipBudgetTest, StepsOfLongAgoAreForgotten) {
  SkipBudget budget(1);
  budget.Record(true);
  for (int64_t step = 1; step < kSkipWindow; ++step) {
    budget.Record(false);
  }
  EXPECT_EQ(budget.nonfinite_steps(), 1);
  EXPECT_FALSE(budget.latest_was_nonfinite());
  budget.Record(true);
  EXPECT_TRUE(budget.latest_was_nonfinite());
  EXPECT_EQ(budget.nonfinite_steps(), 1) << "the first one has left the window";
  EXPECT_FALSE(budget.exceeded());
}

TEST(SkipBudgetTest, TheWholeWindowIsNeverExceeded) {
  EXPECT_EQ(StepOfEnd(kSkipWindow, [](int) { return true; }), 0);
}

}  // namespace
}  // namespace panthera
