#include "optim/options.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::HasSubstr;

OptimOptions Options(Algorithm algorithm, Accumulation accumulate) {
  OptimOptions options;
  options.algorithm = algorithm;
  options.accumulate = accumulate;
  return options;
}

TEST(OptimOptionsTest, FillsInTheBetasOfEachAlgorithm) {
  OptimOptions tiger = Options(Algorithm::kTiger, Accumulation::kMomentum);
  ASSERT_TRUE(tiger.Finish().ok());
  EXPECT_EQ(tiger.beta1, 0.965);
  OptimOptions lion = Options(Algorithm::kLion, Accumulation::kGradient);
  ASSERT_TRUE(lion.Finish().ok());
  EXPECT_EQ(lion.beta1, 0.95);
  EXPECT_EQ(lion.beta2, 0.98);
  OptimOptions adamw = Options(Algorithm::kAdamW, Accumulation::kGradient);
  ASSERT_TRUE(adamw.Finish().ok());
  EXPECT_EQ(adamw.beta1, 0.9);
  EXPECT_EQ(adamw.beta2, 0.95);
}

TEST(OptimOptionsTest, KeepsGivenBetasAndIsIdempotent) {
  OptimOptions lion = Options(Algorithm::kLion, Accumulation::kGradient);
  lion.beta1 = 0;
  lion.beta2 = 0.5;
  ASSERT_TRUE(lion.Finish().ok());
  ASSERT_TRUE(lion.Finish().ok());
  EXPECT_EQ(lion.beta1, 0);
  EXPECT_EQ(lion.beta2, 0.5);
  OptimOptions tiger = Options(Algorithm::kTiger, Accumulation::kGradient);
  tiger.clip_norm = 1;
  ASSERT_TRUE(tiger.Finish().ok());
  ASSERT_TRUE(tiger.Finish().ok());
}

TEST(OptimOptionsTest, TheNonFinitePolicyFollowsTheAccumulation) {
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW}) {
    OptimOptions options = Options(algorithm, Accumulation::kGradient);
    ASSERT_TRUE(options.Finish().ok());
    EXPECT_EQ(options.nonfinite, NonFinitePolicy::kSkip);
  }
  OptimOptions momentum = Options(Algorithm::kTiger, Accumulation::kMomentum);
  ASSERT_TRUE(momentum.Finish().ok());
  ASSERT_TRUE(momentum.Finish().ok());
  EXPECT_EQ(momentum.nonfinite, NonFinitePolicy::kTiger);
}

TEST(OptimOptionsTest, StoppingSuitsEveryAccumulation) {
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    OptimOptions options = Options(Algorithm::kTiger, accumulate);
    options.nonfinite = NonFinitePolicy::kStop;
    EXPECT_TRUE(options.Finish().ok());
    EXPECT_EQ(options.nonfinite, NonFinitePolicy::kStop);
  }
}

TEST(OptimOptionsTest, DirectionsSuitRulesThatGoBySignAndWeightsThatEveryRankHasInFull) {
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW}) {
    for (const WeightStorage weights : {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                        WeightStorage::kBf16, WeightStorage::kBf16PlusFp32}) {
      OptimOptions options = Options(algorithm, Accumulation::kGradient);
      options.weights = weights;
      EXPECT_TRUE(options.Finish().ok());
      EXPECT_EQ(options.low_bits(), LowBits::kSharded);
      options.publish = PublishMode::kDirection;
      const absl::Status status = options.Finish();
      EXPECT_EQ(options.low_bits(), LowBits::kReplicated);
      if (algorithm == Algorithm::kAdamW) {
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr("set optim.publish = \"weights\", or optim.algorithm = \"tiger\""));
      } else if (weights == WeightStorage::kBf16PlusFp32) {
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr("set optim.weights = \"bf16+8\" or optim.publish = \"weights\""));
      } else {
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }
}

TEST(OptimOptionsTest, LazyRowsSuitEveryRuleThatGoesBySign) {
  for (const Algorithm algorithm : {Algorithm::kTiger, Algorithm::kLion}) {
    for (const LazyRows lazy_rows :
         {LazyRows::kOff, LazyRows::kChange, LazyRows::kChangeAndState}) {
      OptimOptions options = Options(algorithm, Accumulation::kGradient);
      options.lazy_rows = lazy_rows;
      EXPECT_TRUE(options.Finish().ok());
      EXPECT_EQ(options.lazy_rows, lazy_rows);
    }
  }
  OptimOptions folding = Options(Algorithm::kTiger, Accumulation::kMomentum);
  folding.lazy_rows = LazyRows::kChange;
  EXPECT_TRUE(folding.Finish().ok());
}

TEST(OptimOptionsTest, ATableOfItsOwnHasTheOptionsOfAdamWAndNoLazyRows) {
  for (const auto& [algorithm, accumulate] :
       {std::pair(Algorithm::kTiger, Accumulation::kMomentum),
        std::pair(Algorithm::kTiger, Accumulation::kGradient),
        std::pair(Algorithm::kLion, Accumulation::kGradient)}) {
    OptimOptions options = Options(algorithm, accumulate);
    options.weights = WeightStorage::kBf16Plus8;
    options.epsilon = 1e-6;
    options.table.optimizer = TableOptimizer::kAdamW;
    options.table.learning_rate = 0.5;
    options.table.weight_decay = 0.25;
    options.table.beta2 = 0.75;
    ASSERT_TRUE(options.Finish().ok());
    ASSERT_TRUE(options.Finish().ok()) << "finished options are valid";
    EXPECT_EQ(options.algorithm, algorithm);
    EXPECT_EQ(options.learning_rate, 1e-3);
    const OptimOptions table = options.ForTable();
    EXPECT_EQ(table.algorithm, Algorithm::kAdamW);
    EXPECT_EQ(table.learning_rate, 0.5);
    EXPECT_EQ(table.weight_decay, 0.25);
    EXPECT_EQ(table.beta1, 0.9);
    EXPECT_EQ(table.beta2, 0.75);
    EXPECT_EQ(table.epsilon, 1e-6);
    EXPECT_EQ(table.accumulate, accumulate);
    EXPECT_EQ(table.weights, WeightStorage::kBf16Plus8);
    EXPECT_EQ(table.lazy_rows, LazyRows::kOff);
  }
}

TEST(OptimOptionsTest, RefusalsNameTheKeyAndTheFix) {
  OptimOptions skip = Options(Algorithm::kTiger, Accumulation::kMomentum);
  skip.nonfinite = NonFinitePolicy::kSkip;
  OptimOptions tiger = Options(Algorithm::kLion, Accumulation::kGradient);
  tiger.nonfinite = NonFinitePolicy::kTiger;
  OptimOptions shrink = Options(Algorithm::kTiger, Accumulation::kMomentum);
  shrink.shrink_ratio = 0;
  OptimOptions clip = Options(Algorithm::kTiger, Accumulation::kMomentum);
  clip.clip_norm = 1;
  OptimOptions tiger_beta2 = Options(Algorithm::kTiger, Accumulation::kMomentum);
  tiger_beta2.beta2 = 0.9;
  OptimOptions one = Options(Algorithm::kLion, Accumulation::kGradient);
  one.beta2 = 1;
  OptimOptions negative = Options(Algorithm::kAdamW, Accumulation::kGradient);
  negative.beta1 = -0.5;
  OptimOptions epsilon = Options(Algorithm::kAdamW, Accumulation::kGradient);
  epsilon.epsilon = 0;
  OptimOptions lazy_adamw = Options(Algorithm::kAdamW, Accumulation::kGradient);
  lazy_adamw.lazy_rows = LazyRows::kChange;
  OptimOptions lazy_state = Options(Algorithm::kTiger, Accumulation::kMomentum);
  lazy_state.lazy_rows = LazyRows::kChangeAndState;
  OptimOptions table_adamw = Options(Algorithm::kAdamW, Accumulation::kGradient);
  table_adamw.table.optimizer = TableOptimizer::kAdamW;
  OptimOptions lazy_table = Options(Algorithm::kTiger, Accumulation::kMomentum);
  lazy_table.table.optimizer = TableOptimizer::kAdamW;
  OptimOptions table_beta = lazy_table;
  table_beta.table.beta2 = 1;
  OptimOptions table_epsilon = lazy_table;
  table_epsilon.epsilon = 0;
  lazy_table.lazy_rows = LazyRows::kChange;
  OptimOptions table_rms = Options(Algorithm::kLion, Accumulation::kGradient);
  table_rms.table_rms = TableRms::kTable;
  OptimOptions adamw_rms = Options(Algorithm::kTiger, Accumulation::kMomentum);
  adamw_rms.table_rms = TableRms::kTable;
  adamw_rms.table.optimizer = TableOptimizer::kAdamW;
  const struct {
    OptimOptions options;
    const char* key;
    const char* fix;
  } table[] = {
      {clip, "optim.clip_norm = 1", "set optim.accumulate = \"gradient\""},
      {Options(Algorithm::kLion, Accumulation::kMomentum), "lion",
       "set optim.accumulate = \"gradient\""},
      {Options(Algorithm::kAdamW, Accumulation::kMomentum), "adamw",
       "set optim.accumulate = \"gradient\""},
      {tiger_beta2, "optim.beta2", "set optim.beta1"},
      {one, "optim.beta2 = 1", "-1 for the default 0.98"},
      {negative, "optim.beta1 = -0.5", "-1 for the default 0.9"},
      {epsilon, "optim.epsilon = 0", "1e-8"},
      {skip, "optim.nonfinite = \"skip\"", "set optim.accumulate = \"gradient\""},
      {skip, "optim.nonfinite = \"skip\"", "or optim.nonfinite = \"tiger\""},
      {tiger, "optim.nonfinite = \"tiger\"", "set optim.nonfinite = \"skip\""},
      {shrink, "optim.shrink_ratio = 0", "0.99"},
      {lazy_adamw, "optim.lazy_rows = \"change\"", "set optim.lazy_rows = \"off\""},
      {table_rms, "optim.table_rms = \"table\"", "set optim.table_rms = \"row\""},
      {adamw_rms, "optim.table_optimizer = \"adamw\"",
       "set optim.table_rms = \"row\" or optim.table_optimizer = \"same\""},
      {lazy_state, "optim.lazy_rows = \"change_and_state\"", "set optim.accumulate = \"gradient\""},
      {lazy_state, "optim.lazy_rows = \"change_and_state\"", "or optim.lazy_rows = \"change\""},
      {table_adamw, "optim.table_optimizer = \"adamw\"", "set optim.table_optimizer = \"same\""},
      {table_beta, "optim.table_beta2 = 1", "-1 for the default 0.95"},
      {table_epsilon, "optim.epsilon = 0", "1e-8"},
      {lazy_table, "optim.lazy_rows = \"change\"", "set optim.lazy_rows = \"off\""},
      {lazy_table, "table_optimizer = \"adamw\"", "or optim.table_optimizer = \"same\""},
  };
  for (const auto& row : table) {
    OptimOptions options = row.options;
    const std::string message(options.Finish().message());
    EXPECT_THAT(message, HasSubstr(row.key));
    EXPECT_THAT(message, HasSubstr(row.fix));
  }
}

}  // namespace
}  // namespace panthera
