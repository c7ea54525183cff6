// What becomes of gradients that are not finite on their way from a rank to weights and state: all
// ranks decide alike, and alike for every number of ranks.
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "tests/optim/small_training.h"

namespace panthera {
namespace {

using testing::Elements;
using ::testing::ElementsAre;
using testing::EmptyElements;
using ::testing::IsEmpty;
using testing::kMicroSteps;
using testing::kParts;
using testing::Noise;
using testing::NoPoison;
using testing::Outcome;
using testing::Poison;
using testing::RankWorld;
using testing::RunRanks;
using testing::SmallInteger;
using testing::SmallTraining;
using testing::SyncedWorker;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

OptimOptions Options(Algorithm algorithm, Accumulation accumulate, WeightStorage weights,
                     MomentumStorage momentum = MomentumStorage::kFp32) {
  return testing::TrainingOptions(algorithm, accumulate, weights, momentum);
}

Outcome Train(const OptimOptions& options, int ranks, const Poison& poison, int steps) {
  return SmallTraining(options, ranks, poison).Run(steps);
}

void ExpectSameNumbers(const Outcome& actual, const Outcome& expected) {
  EXPECT_TRUE(actual.weights == expected.weights);
  EXPECT_TRUE(actual.state1 == expected.state1);
  EXPECT_TRUE(actual.state2 == expected.state2);
}

constexpr int kUp0 = 3;
constexpr int kGain = 5;
constexpr int kEmbed = 0;

// Step 1: up0 in the first micro-step, on the last rank; the table in the second, on the first
// rank; a gain in the last one. Step 2: up0 in all.
float SomeTensors(int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
  if (step == 1) {
    if (id.index == kUp0 && micro == 0 && part == kParts - 1 && i == 2000) {
      return NAN;
    }
    if (id.index == kEmbed && micro == 1 && part == 0 && i == 13 * 37 - 1) {
      return -kInfinity;
    }
    if (id.index == kGain && micro == 2 && part == 1 && i == 3) {
      return kInfinity;
    }
  }
  return step == 2 && id.index == kUp0 && part == 2 && i == 0 ? NAN : 0.0F;
}

OptimOptions WithTable(TableOptimizer table, OptimOptions options) {
  options.table.optimizer = table;
  CHECK_OK(options.Finish());
  return options;
}

using TigerCase = std::tuple<TableOptimizer, WeightStorage, MomentumStorage>;

class TigerPolicyTest : public ::testing::TestWithParam<TigerCase> {
 protected:
  static OptimOptions PolicyOptions() {
    const auto [table, weights, momentum] = GetParam();
    return WithTable(table, Options(Algorithm::kTiger, Accumulation::kMomentum, weights, momentum));
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, TigerPolicyTest,
    ::testing::Combine(::testing::Values(TableOptimizer::kSame, TableOptimizer::kAdamW),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                         WeightStorage::kBf16, WeightStorage::kBf16PlusFp32),
                       ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16)));

TEST_P(TigerPolicyTest, RanksDoNotChangeABitOfWhatIsLeftOut) {
  const Outcome one = Train(PolicyOptions(), 1, SomeTensors, 4);

  EXPECT_THAT(one.tensors, ElementsAre(IsEmpty(), ElementsAre(kEmbed, kUp0, kGain),
                                       ElementsAre(kUp0), IsEmpty()));
  EXPECT_THAT(one.masked, ElementsAre(0, 3, kMicroSteps, 0));
  EXPECT_THAT(one.found, ElementsAre(false, true, true, false));
  EXPECT_THAT(one.skipped, ::testing::Each(false));
  for (const int ranks : {2, 4}) {
    const Outcome many = Train(PolicyOptions(), ranks, SomeTensors, 4);
    ExpectSameNumbers(many, one);
    EXPECT_EQ(many.norms, one.norms) << ranks << " ranks";
    EXPECT_EQ(many.tensors, one.tensors) << ranks << " ranks";
    EXPECT_EQ(many.masked, one.masked) << ranks << " ranks";
  }
}

TEST_P(TigerPolicyTest, NoTraceOfWhatIsNotFiniteRemains) {
  const Outcome outcome = Train(PolicyOptions(), 2, SomeTensors, 4);
  for (const Elements& elements : {outcome.weights, outcome.state1}) {
    for (const std::vector<float>& tensor : elements) {
      for (const float element : tensor) {
        ASSERT_TRUE(std::isfinite(element));
      }
    }
  }
  for (const double norm : outcome.norms) {
    EXPECT_TRUE(std::isfinite(norm));
  }
}

// A tensor with bad micro-gradients in step 0 and a tensor without: afterwards only the first
// differs from a run in which nothing was bad.
TEST_P(TigerPolicyTest, OnlyTensorsThatWereLeftOutDiffer) {
  const auto bad_up0 = [](int, int64_t micro, int64_t part, ParamId id, int64_t i) {
    return id.index == kUp0 && micro == 1 && part == 3 && i == 1024 ? NAN : 0.0F;
  };
  const Outcome good = Train(PolicyOptions(), 4, NoPoison, 1);
  const Outcome bad = Train(PolicyOptions(), 4, bad_up0, 1);
  for (size_t p = 0; p < good.weights.size(); ++p) {
    EXPECT_EQ(good.weights[p] == bad.weights[p], p != kUp0) << "parameter " << p;
    EXPECT_EQ(good.state1[p] == bad.state1[p], p != kUp0) << "parameter " << p;
  }
}

// The squares of the micro-steps that were folded, over k: integers, so block sums are exact.
TEST(TigerPolicyNormTest, WhatIsLeftOutCountsAsZero) {
  const OptimOptions options =
      Options(Algorithm::kTiger, Accumulation::kMomentum, WeightStorage::kFp32);
  const auto all_but_one = [](int step, int64_t micro, int64_t, ParamId id, int64_t) {
    return step == 1 && (micro != 1 || id.index != kUp0) ? NAN : 0.0F;
  };
  const Outcome outcome = Train(options, 2, all_but_one, 2);
  double squares = 0;
  for (int64_t i = 0; i < 81 * 32; ++i) {
    double sum = 0;
    for (uint64_t part = 0; part < kParts; ++part) {
      sum += static_cast<double>(SmallInteger(100 + 10 + part, ParamId{kUp0}, i));
    }
    squares += sum * sum / kMicroSteps;
  }
  EXPECT_NEAR(outcome.norms[1], std::sqrt(squares), 1e-12 * std::sqrt(squares));
  EXPECT_EQ(outcome.masked[1], kMicroSteps * 7 - 1);
}

using SkipCase = std::tuple<Algorithm, TableOptimizer, WeightStorage, MomentumStorage>;

class SkipPolicyTest : public ::testing::TestWithParam<SkipCase> {
 protected:
  static OptimOptions PolicyOptions() {
    const auto [algorithm, table, weights, momentum] = GetParam();
    return WithTable(table, Options(algorithm, Accumulation::kGradient, weights, momentum));
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, SkipPolicyTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                       ::testing::Values(TableOptimizer::kSame),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                         WeightStorage::kBf16, WeightStorage::kBf16PlusFp32),
                       ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16)));
INSTANTIATE_TEST_SUITE_P(WithATableOfItsOwn, SkipPolicyTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion),
                                            ::testing::Values(TableOptimizer::kAdamW),
                                            ::testing::Values(WeightStorage::kFp32,
                                                              WeightStorage::kBf16Plus8),
                                            ::testing::Values(MomentumStorage::kBf16)));

TEST_P(SkipPolicyTest, OneBadElementOnOneRankKeepsEveryBitOnAllRanks) {
  const Outcome before = Train(PolicyOptions(), 1, NoPoison, 2);
  const auto bad_in_last_step = [](int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
    return step == 2 && micro == 1 && part == 1 && id.index == kUp0 && i == 77 ? kInfinity : 0.0F;
  };
  for (const int ranks : {1, 2, 4}) {
    const Outcome after = Train(PolicyOptions(), ranks, bad_in_last_step, 3);
    ExpectSameNumbers(after, before);
    EXPECT_THAT(after.skipped, ElementsAre(false, false, true));
    EXPECT_THAT(after.tensors.back(), ElementsAre(kUp0));
    EXPECT_THAT(after.masked, ::testing::Each(0));
    EXPECT_FALSE(std::isfinite(after.norms.back()));
  }
}

TEST_P(SkipPolicyTest, TheStepAfterASkippedOneIsThatOfItsNumber) {
  const auto bad_first = [](int step, int64_t, int64_t part, ParamId id, int64_t i) {
    return step == 0 && part == 0 && id.index == kGain && i == 0 ? NAN : 0.0F;
  };
  const Outcome skipped = Train(PolicyOptions(), 2, bad_first, 2);

  // Step 1 alone: random bits and AdamW's t are those of step 1, weights those of the start.
  Outcome alone;
  {
    ParameterStore store;
    testing::AddSmallModel(store);
    alone.weights = alone.state1 = alone.state2 = EmptyElements(store);
  }
  RunRanks(1, [&](RankWorld& world) {
    SyncedWorker worker(Device{}, world.ledger(), world.communicator(), PolicyOptions());
    worker.SetWeights([](ParamId id, int64_t i) { return 0.5F * Noise(77, id, i); });
    StepInput input;
    input.step = 1;
    input.learning_rate = 0.01;
    input.table_learning_rate = 0.003;
    worker.StepWithGradients(input, [](ParamId id, int64_t i) {
      float sum = 0;
      for (uint64_t n = 0; n < kMicroSteps * kParts; ++n) {
        sum += SmallInteger(100 + 10 * (n / kParts) + n % kParts, id, i);
      }
      return static_cast<float>(1.0 / kMicroSteps) * sum;
    });
    worker.CopyWeights(alone.weights);
    worker.CopyState("momentum", alone.state1);
    worker.CopyState("moment1", alone.state1);
    worker.CopyState("moment2", alone.state2);
  });
  EXPECT_THAT(skipped.skipped, ElementsAre(true, false));
  ExpectSameNumbers(skipped, alone);
}

TEST(SkipPolicyLossTest, ALossThatIsNotFiniteSkipsTheStepAlone) {
  const OptimOptions options =
      Options(Algorithm::kAdamW, Accumulation::kGradient, WeightStorage::kFp32);
  SmallTraining training(options, 2, NoPoison);
  training.loss = NAN;
  const Outcome outcome = training.Run(1);
  EXPECT_THAT(outcome.skipped, ElementsAre(true));
  EXPECT_THAT(outcome.tensors, ElementsAre(IsEmpty()));
  EXPECT_EQ(outcome.weights[1][5], 0.5F * Noise(77, ParamId{1}, 5));
}

TEST(SkipPolicyLossTest, UnderTigerALossThatIsNotFiniteIsReportedAndLeavesNothingOut) {
  const OptimOptions options =
      Options(Algorithm::kTiger, Accumulation::kMomentum, WeightStorage::kFp32);
  const Outcome good = Train(options, 2, NoPoison, 1);
  SmallTraining training(options, 2, NoPoison);
  training.loss = kInfinity;
  const Outcome outcome = training.Run(1);
  EXPECT_THAT(outcome.found, ElementsAre(true));
  EXPECT_THAT(outcome.masked, ElementsAre(0));
  ExpectSameNumbers(outcome, good);
}

TEST(SkipPolicyLossTest, ANormWhoseSquaresOverflowSkipsTheStep) {
  const OptimOptions options =
      Options(Algorithm::kLion, Accumulation::kGradient, WeightStorage::kFp32);
  const Outcome outcome = Train(
      options, 1,
      [](int, int64_t, int64_t, ParamId id, int64_t i) {
        return id.index == kUp0 && i == 0 ? 1e25F : 0.0F;
      },
      1);
  EXPECT_THAT(outcome.skipped, ElementsAre(true));
  EXPECT_THAT(outcome.tensors, ElementsAre(ElementsAre(kUp0)));
}

TEST(StopPolicyTest, ReportsTheTensorsAndLeavesNothingOut) {
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    OptimOptions options = Options(Algorithm::kTiger, accumulate, WeightStorage::kFp32);
    options.nonfinite = NonFinitePolicy::kStop;
    ASSERT_EQ(options.Finish(), absl::OkStatus());
    const auto bad = [](int, int64_t, int64_t part, ParamId id, int64_t i) {
      return part == 1 && id.index == kGain && i == 0 ? NAN : 0.0F;
    };
    const Outcome outcome = Train(options, 2, bad, 1);
    EXPECT_THAT(outcome.found, ElementsAre(true));
    EXPECT_THAT(outcome.skipped, ElementsAre(false));
    EXPECT_THAT(outcome.masked, ElementsAre(0));
    EXPECT_THAT(outcome.tensors, ElementsAre(ElementsAre(kGain)));
  }
}

}  // namespace
}  // namespace panthera
