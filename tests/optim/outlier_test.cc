// Rarely seen embedding rows under Tiger: how long one sighting pushes, and where a constant push
// ends (Su Jianlin, https://kexue.fm/archives/9736).

#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/optim/small_model.h"
#include "tests/support/reference/optimizers.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::Noise;
using testing::Worker;

void AddTable(ParameterStore& store) {
  store.Add(store.AddGroup("embedding", GroupKind::kSharded),
            {"embed", {1, 768}, ParamKind::kEmbedding});
}

struct Table {
  explicit Table(const OptimOptions& options) : worker(Device{}, ledger, comm, options, AddTable) {}

  void SetMomentum(float value) {
    worker.optimizer->ForEachState([&](const char*, GroupId, Tensor shard) {
      for (int64_t i = 0; i < shard.elements(); ++i) {
        if (shard.dtype() == DType::kBF16) {
          shard.data<BF16>()[i] = BF16(value);
        } else {
          shard.data<float>()[i] = value;
        }
      }
    });
  }
  float Momentum() {
    Elements out = EmptyElements(worker.store);
    worker.CopyState("momentum", out);
    return out[0][0];
  }
  void FoldConstant(float gradient) {
    worker.Fold(MicroStepPlace::kFirst, 1, 1, [&](ParamId, int64_t, int64_t) { return gradient; });
  }
  // Steps with zero gradients until the momentum is zero; -1 if it is not after `limit`.
  int StepsToZero(int limit) {
    for (int step = 1; step <= limit; ++step) {
      FoldConstant(0);
      if (Momentum() == 0) {
        return step;
      }
    }
    return -1;
  }

  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker;
};

// ln(1e-6 / 2^-126) / -ln(0.965) = 2063.6 and ln(1e-3 / 2^-126) / -ln(0.965) = 2257.5.
TEST(OutlierTest, Row07MomentumOfAnUnseenRowEnds) {
  Table table(testing::OptionsFor(Algorithm::kTiger));
  table.SetMomentum(1e-6F);
  EXPECT_EQ(table.StepsToZero(3000), 2064);
  table.SetMomentum(-1e-3F);
  EXPECT_EQ(table.StepsToZero(3000), 2258);
}

TEST(OutlierTest, MomentumInBf16EndsToo) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.momentum = MomentumStorage::kBf16;
  Table table(options);
  table.SetMomentum(1e-6F);
  const int steps = table.StepsToZero(3000);
  EXPECT_GT(steps, 1900);
  EXPECT_LT(steps, 2200);
}

// What the rule above avoids: 0.965 * 14 rounds to 14 units of the smallest subnormal.
TEST(OutlierTest, Row07WithoutTheRuleMomentumWouldStallAboveZero) {
  float momentum = 1e-6F;
  for (int step = 0; step < 10000; ++step) {
    momentum = 0.965F * momentum;
  }
  EXPECT_EQ(momentum, 14 * 0x1p-149F);
}

TEST(OutlierTest, ASeenOnceRowStopsMovingWhenItsMomentumEnds) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weight_decay = 0;
  Table table(options);
  table.worker.SetWeights([](ParamId, int64_t) { return 0.036F; });
  table.FoldConstant(1e-6F / 0.035F);
  StepInput input;
  input.learning_rate = 1e-3;
  Elements before = EmptyElements(table.worker.store);
  Elements after = before;
  for (int step = 0; step < 2070; ++step) {
    table.worker.optimizer->Step(table.worker.ctx, input);
    table.FoldConstant(0);
  }
  table.worker.CopyWeights(before);
  EXPECT_NE(before[0][0], 0.036F);
  table.worker.optimizer->Step(table.worker.ctx, input);
  table.worker.CopyWeights(after);
  EXPECT_EQ(after, before);
}

// Constant signs: the row's RMS r follows dr/dt = alpha r (1 - lambda r), so that it reaches 90%
// of 1 / lambda after ln((1 / (lambda r0) - 1) * 9) / alpha steps, and every component ends at
// -sign / lambda. With alpha = 0.01 a step is 1% of the way: 3% tolerance in time.
TEST(OutlierTest, ConstantSignsDriveARowToOneOverLambda) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weight_decay = 0.01;
  Table table(options);
  table.worker.SetWeights([](ParamId id, int64_t i) { return 0.036F * Noise(1, id, i); });
  table.worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId id, int64_t i, int64_t) {
    return Noise(2, id, i) < 0 ? -1.0F : 1.0F;
  });
  const auto row = [&] {
    Elements weights = EmptyElements(table.worker.store);
    table.worker.CopyWeights(weights);
    return std::vector<double>(weights[0].begin(), weights[0].end());
  };
  StepInput input;
  input.learning_rate = 0.01;
  const double start = testing::reference::Rms(row(), 0, 768);
  const double predicted = std::log((100 / start - 1) * 9) / 0.01;
  int reached = 0;
  for (int step = 1; step <= 3000; ++step) {
    table.worker.optimizer->Step(table.worker.ctx, input);
    if (reached == 0 && testing::reference::Rms(row(), 0, 768) >= 90) {
      reached = step;
    }
  }
  // Components that start against their sign first shrink the RMS: allow their detour.
  EXPECT_GT(reached, 0.97 * predicted);
  EXPECT_LT(reached, 1.1 * predicted);
  const std::vector<double> end = row();
  for (size_t i = 0; i < end.size(); ++i) {
    const double sign = Noise(2, ParamId{0}, static_cast<int64_t>(i)) < 0 ? -1 : 1;
    ASSERT_NEAR(end[i], -100 * sign, 1e-3);
  }
}

// The fixed point of constant signs: sign + lambda * theta = 0. The rate at the end is alpha /
// lambda, so that the distance shrinks by 1 - alpha a step: after 3,000 of 0.01, e^-20 or less is
// left of it (the first third is for growing), and fp32 rounds.
TEST(OutlierTest, Row06ConstantSignsEndAtOneOverTheDecay) {
  for (const double decay : {0.01, 0.1, 1.0}) {
    OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
    options.weight_decay = decay;
    Table table(options);
    table.worker.SetWeights([](ParamId id, int64_t i) { return 0.036F * Noise(1, id, i); });
    table.worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId id, int64_t i, int64_t) {
      return Noise(2, id, i) < 0 ? -1.0F : 1.0F;
    });
    StepInput input;
    input.learning_rate = 0.01;
    for (int step = 1; step <= 3500; ++step) {
      table.worker.optimizer->Step(table.worker.ctx, input);
    }
    Elements end = EmptyElements(table.worker.store);
    table.worker.CopyWeights(end);
    for (size_t i = 0; i < end[0].size(); ++i) {
      const double sign = Noise(2, ParamId{0}, static_cast<int64_t>(i)) < 0 ? -1 : 1;
      ASSERT_NEAR(end[0][i], -sign / decay, 1e-5 / decay) << decay;
    }
  }
}

// 768 normal components of deviation 0.036 under constant signs that know nothing of them: in pairs
// of equal components with opposite signs, so that no chance correlation shifts the time. Half of
// them first turn round, which takes ln 2 / alpha longer than the logistic law from the start. The
// published counts are those of another sample, whose RMS and chance correlation shift them by
// sqrt(1 / 768 + 1 / 1536) / alpha: to their last digit and two such deviations.
TEST(OutlierTest, Row06RmsReachesNineTenthsOfTheBoundAfterThePublishedUpdates) {
  const auto steps_to_90 = [](double rate) {
    OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
    options.weight_decay = 0.01;
    Table table(options);
    table.worker.SetWeights([](ParamId id, int64_t i) {
      // Box and Muller, of uniform numbers in (0, 1) and a turn.
      const double uniform = (static_cast<double>(Noise(3, id, i / 2)) + 1 + 1e-9) / 2;
      const double turn = std::numbers::pi * static_cast<double>(Noise(4, id, i / 2));
      return static_cast<float>(0.036 * std::sqrt(-2 * std::log(uniform)) * std::cos(turn));
    });
    table.worker.Fold(MicroStepPlace::kFirst, 1, 1,
                      [](ParamId, int64_t i, int64_t) { return i % 2 == 0 ? -1.0F : 1.0F; });
    StepInput input;
    input.learning_rate = rate;
    Elements row = EmptyElements(table.worker.store);
    table.worker.CopyWeights(row);
    const double start = testing::reference::Rms({row[0].begin(), row[0].end()}, 0, 768);
    const double law = (std::log((100 / start - 1) * 9) + std::numbers::ln2) / rate;
    for (int step = 1; step <= 20000; ++step) {
      table.worker.optimizer->Step(table.worker.ctx, input);
      table.worker.CopyWeights(row);
      if (testing::reference::Rms({row[0].begin(), row[0].end()}, 0, 768) >= 90) {
        // A step of the law is discrete: alpha / 2 of the time.
        EXPECT_NEAR(step, law, 2 * rate * law);
        return step;
      }
    }
    return -1;
  };
  const double deviations = 2 * std::sqrt(1.0 / 768 + 1.0 / 1536);
  EXPECT_NEAR(steps_to_90(1e-3), 10800, 50 + deviations / 1e-3);
  EXPECT_NEAR(steps_to_90(1.76e-3), 6100, 50 + deviations / 1.76e-3);
}

// One sighting, then only other tokens, as in ASeenOnceRowStopsMovingWhenItsMomentumEnds but with
// equal signs: each of the 2,064 steps in which the momentum is not yet zero multiplies the row by
// 1 + 1e-3, up to e^2.06 = 7.9 in the end. With lazy rows the step of the sighting is the last.
TEST(OutlierTest, ARareRowGrowsAfterOneSightingAndWithLazyRowsDoesNot) {
  constexpr float kStart = 0.036F;
  const auto after_one_sighting = [&](LazyRows lazy_rows) {
    OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
    options.weight_decay = 0;
    options.lazy_rows = lazy_rows;
    Table table(options);
    table.worker.SetWeights([](ParamId, int64_t) { return kStart; });
    uint8_t is_seen = 1;
    StepInput input;
    input.learning_rate = 1e-3;
    if (lazy_rows != LazyRows::kOff) {
      input.rows = Tensor(&is_seen, {1}, DType::kU8, Device{});
    }
    table.FoldConstant(-1e-6F / 0.035F);
    for (int step = 0; step < 2070; ++step) {
      table.worker.optimizer->Step(table.worker.ctx, input);
      table.FoldConstant(0);
      is_seen = 0;
    }
    Elements weights = EmptyElements(table.worker.store);
    table.worker.CopyWeights(weights);
    EXPECT_EQ(table.Momentum(), 0) << "the sighting is over";
    return weights[0][0];
  };
  EXPECT_NEAR(after_one_sighting(LazyRows::kOff), kStart * std::exp(2.06F), 0.01F);
  EXPECT_NEAR(after_one_sighting(LazyRows::kChange), kStart * 1.001F, 1e-7F);
}

// One sighting, then only other tokens, as above. Under AdamW, t steps after a gradient g,
//   m1 = (1 - b1) b1^t g,   m2 = (1 - b2) b2^t g^2,
// so that the step fades as (b1 / sqrt(b2))^t = 0.923^t and the row comes to rest in a place that
// does not depend on |g|.
TEST(OutlierTest, ARareRowComesToRestWithAdamWOnTheTable) {
  constexpr float kStart = 0.036F;
  constexpr double kRate = 1e-3;
  constexpr double kBeta1 = 0.9;
  constexpr double kBeta2 = 0.95;
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.table.optimizer = TableOptimizer::kAdamW;
  options.table.weight_decay = 0;
  ASSERT_TRUE(options.Finish().ok());
  Table table(options);
  table.worker.SetWeights([](ParamId, int64_t) { return kStart; });
  StepInput input;
  input.learning_rate = 1;  // of nothing here
  input.table_learning_rate = kRate;
  double expected = static_cast<double>(kStart);
  table.FoldConstant(-1);
  for (int t = 0; t < 500; ++t) {
    input.step = t;
    table.worker.optimizer->Step(table.worker.ctx, input);
    table.FoldConstant(0);
    const double moment1 = (1 - kBeta1) * std::pow(kBeta1, t) / (1 - std::pow(kBeta1, t + 1));
    const double moment2 = (1 - kBeta2) * std::pow(kBeta2, t) / (1 - std::pow(kBeta2, t + 1));
    expected += kRate * moment1 / std::sqrt(moment2);
  }
  Elements before = EmptyElements(table.worker.store);
  table.worker.CopyWeights(before);
  // Epsilon is 1e-8 of a root that has fallen to 3e-6 when 0.923^t is 3e-9; each step adds half a
  // unit of rounding at most, and few are large enough to.
  EXPECT_NEAR(before[0][0], static_cast<float>(expected), 1e-6F);
  input.step = 500;
  table.worker.optimizer->Step(table.worker.ctx, input);
  Elements after = EmptyElements(table.worker.store);
  table.worker.CopyWeights(after);
  EXPECT_EQ(after, before) << "it is at rest";
}

}  // namespace
}  // namespace panthera
