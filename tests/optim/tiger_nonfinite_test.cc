// Tiger with micro-gradients that are left out, against the reference code's course of things:
// there a tensor whose micro-gradient is bad shrinks at once and takes no part in this micro-step,
// whatever its place in the window.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "optim/tiger.h"
#include "runtime/comm/self_communicator.h"
#include "tests/optim/small_model.h"
#include "tests/support/reference/optimizers.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::Noise;
using testing::Worker;
using testing::reference::OptimizedTensor;

constexpr double kUnit = 0x1p-24;
constexpr double kBeta = 0.965;
constexpr double kDecay = 0.1;
constexpr double kRate = 0.01;
constexpr double kShrink = 0.9;
constexpr int kMicroSteps = 4;

// Bit i: micro-step i is bad. None, first, a middle one, last, all, first and last, both middle
// ones, all but the last.
constexpr std::array<unsigned, 8> kPatterns = {0b0000, 0b0001, 0b0010, 0b1000,
                                               0b1111, 0b1001, 0b0110, 0b0111};

// Which micro-steps of a window are bad for a parameter: every pattern meets every parameter.
bool IsBad(int window, int micro, ParamId id) {
  const size_t pattern = static_cast<size_t>(window + id.index) % kPatterns.size();
  return (kPatterns[pattern] >> static_cast<unsigned>(micro) & 1U) != 0;
}

float Gradient(int window, int micro, ParamId id, int64_t i) {
  return Noise(static_cast<uint64_t>(100 + 10 * window + micro), id, i);
}

double Wide(float x) { return static_cast<double>(x); }

// One micro-step of the reference code on one tensor, in double precision.
void ReferenceMicroStep(OptimizedTensor& t, bool bad, int micro, const std::vector<double>& g) {
  if (bad) {
    const double centre = t.kind == ParamKind::kGain ? 1 : 0;
    for (double& theta : t.theta) {
      theta = (theta - centre) * kShrink + centre;
    }
    return;
  }
  for (size_t i = 0; i < g.size(); ++i) {
    t.moment1[i] = (micro == 0 ? kBeta : 1) * t.moment1[i] + (1 - kBeta) / kMicroSteps * g[i];
  }
  if (micro + 1 == kMicroSteps) {
    const std::vector<double> rates = TigerRates(t, kRate);
    for (size_t i = 0; i < g.size(); ++i) {
      const double decay = t.decays() ? kDecay * t.theta[i] : 0;
      t.theta[i] -= rates[i] * (testing::reference::Sign(t.moment1[i]) + decay);
    }
  }
}

struct Storages {
  WeightStorage weights;
  MomentumStorage momentum;
};

OptimOptions Options(Storages storages) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weights = storages.weights;
  options.momentum = storages.momentum;
  options.weight_decay = kDecay;
  options.shrink_ratio = kShrink;
  return options;
}

// A worker on one rank, and the flags that steer it.
struct Single {
  explicit Single(const OptimOptions& options)
      : worker(Device{}, ledger, comm, options),
        flags(static_cast<size_t>(worker.store.num_params())),
        counts(flags.size()) {
    worker.SetWeights([&](ParamId id, int64_t i) {
      const float centre = worker.store.spec(id).kind == ParamKind::kGain ? 1.0F : 0.0F;
      return centre + 0.5F * Noise(1, id, i);
    });
  }

  int64_t params() const { return worker.store.num_params(); }
  Tensor left_out() { return {flags.data(), {params()}, DType::kU8, Device{}}; }
  // Bad gradients are NaN, so that a trace of them would show.
  void Fold(int window, int micro) {
    for (size_t p = 0; p < flags.size(); ++p) {
      flags[p] = IsBad(window, micro, ParamId{static_cast<int>(p)}) ? 1 : 0;
      counts[p] += flags[p];
    }
    worker.Fold(
        micro == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater, 1.0 / kMicroSteps, 1,
        [&](ParamId id, int64_t i, int64_t) {
          return IsBad(window, micro, id) ? NAN : Gradient(window, micro, id, i);
        },
        left_out());
  }
  void Step(int window) {
    StepInput input;
    input.step = window;
    input.learning_rate = kRate;
    input.left_out = left_out();
    input.shrinks = Tensor(counts.data(), {params()}, DType::kI32, Device{});
    worker.optimizer->Step(worker.ctx, input);
    counts.assign(counts.size(), 0);
  }
  Elements Weights() {
    Elements out = EmptyElements(worker.store);
    worker.CopyWeights(out);
    return out;
  }
  Elements Momentum() {
    Elements out = EmptyElements(worker.store);
    worker.CopyState("momentum", out);
    return out;
  }

  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker;
  std::vector<uint8_t> flags;
  std::vector<int32_t> counts;
};

class TigerNonFiniteTest : public ::testing::TestWithParam<Storages> {
 protected:
  // What storing a number can lose, relative to it.
  static double WeightLoss() {
    switch (GetParam().weights) {
      case WeightStorage::kBf16:
        return 0x1p-7;
      case WeightStorage::kBf16Plus8:
        return 0x1p-15;
      default:
        return kUnit;
    }
  }
  static double MomentumLoss() {
    return GetParam().momentum == MomentumStorage::kBf16 ? UnitRoundoff(DType::kBF16) : kUnit;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Storages, TigerNonFiniteTest,
    ::testing::Values(Storages{WeightStorage::kFp32, MomentumStorage::kFp32},
                      Storages{WeightStorage::kFp32, MomentumStorage::kBf16},
                      Storages{WeightStorage::kBf16Plus8, MomentumStorage::kFp32},
                      Storages{WeightStorage::kBf16, MomentumStorage::kBf16},
                      Storages{WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32}));

// Each window starts from the same bits as its reference. Momentum: each of the folds rounds three
// times and stores. Weights: the factor s^n, two products and a sum round; of the rate tiger_test
// says 40 units; then they are stored once, whatever n is.
TEST_P(TigerNonFiniteTest, Row04EveryPatternOfBadMicroStepsFollowsTheReference) {
  Single single(Options(GetParam()));
  const ParameterStore& store = single.worker.store;
  for (int window = 0; window < static_cast<int>(kPatterns.size()); ++window) {
    const Elements theta_before = single.Weights();
    const Elements momentum_before = single.Momentum();
    for (int micro = 0; micro < kMicroSteps; ++micro) {
      single.Fold(window, micro);
    }
    single.Step(window);
    const Elements theta = single.Weights();
    const Elements momentum = single.Momentum();
    for (int p = 0; p < store.num_params(); ++p) {
      const auto at = static_cast<size_t>(p);
      const ParamSpec& spec = store.spec(ParamId{p});
      OptimizedTensor t;
      t.kind = spec.kind;
      t.width = static_cast<size_t>(spec.shape[spec.shape.rank() - 1]);
      t.theta.assign(theta_before[at].begin(), theta_before[at].end());
      t.moment1.assign(momentum_before[at].begin(), momentum_before[at].end());
      const std::vector<double> largest_rates = TigerRates(t, kRate);
      for (int micro = 0; micro < kMicroSteps; ++micro) {
        std::vector<double> g(t.theta.size());
        for (size_t i = 0; i < g.size(); ++i) {
          g[i] = Wide(Gradient(window, micro, ParamId{p}, static_cast<int64_t>(i)));
        }
        ReferenceMicroStep(t, IsBad(window, micro, ParamId{p}), micro, g);
      }
      for (size_t i = 0; i < t.theta.size(); ++i) {
        const double momentum_bound = kMicroSteps * (4 * kUnit + MomentumLoss()) *
                                      (std::fabs(Wide(momentum_before[at][i])) + 1 - kBeta);
        ASSERT_NEAR(Wide(momentum[at][i]), t.moment1[i], momentum_bound)
            << spec.name << " " << i << " window " << window;
        const double size = 1 + std::fabs(Wide(theta_before[at][i]));
        const double rate = largest_rates[i];
        double bound = 40 * kUnit * rate * size + (4 * kUnit + WeightLoss()) * (size + rate);
        if (std::fabs(t.moment1[i]) <= momentum_bound) {
          bound += 2 * rate;
        }
        ASSERT_NEAR(Wide(theta[at][i]), t.theta[i], bound)
            << spec.name << " " << i << " window " << window;
      }
    }
  }
}

TEST_P(TigerNonFiniteTest, Row04ABadMicroGradientKeepsEveryBitOfItsTensorsMomentum) {
  Single single(Options(GetParam()));
  for (int window = 0; window < static_cast<int>(kPatterns.size()); ++window) {
    for (int micro = 0; micro < kMicroSteps; ++micro) {
      const Elements before = single.Momentum();
      single.Fold(window, micro);
      const Elements after = single.Momentum();
      for (int p = 0; p < single.params(); ++p) {
        const auto at = static_cast<size_t>(p);
        EXPECT_EQ(after[at] == before[at], IsBad(window, micro, ParamId{p}))
            << "parameter " << p << " window " << window << " micro-step " << micro;
      }
    }
  }
}

// The other tensors have the bits of a run in which nothing was bad.
TEST_P(TigerNonFiniteTest, Row04TensorsWithGoodGradientsAreUpdatedAsUsual) {
  constexpr int kWindow = 3;
  Single some_bad(Options(GetParam()));
  Single all_good(Options(GetParam()));
  for (int micro = 0; micro < kMicroSteps; ++micro) {
    some_bad.Fold(kWindow, micro);
    all_good.worker.Fold(
        micro == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater, 1.0 / kMicroSteps, 1,
        [&](ParamId id, int64_t i, int64_t) { return Gradient(kWindow, micro, id, i); });
  }
  some_bad.Step(kWindow);
  all_good.Step(kWindow);
  const Elements some_bad_weights = some_bad.Weights();
  const Elements all_good_weights = all_good.Weights();
  int good = 0;
  for (int p = 0; p < some_bad.params(); ++p) {
    bool bad = false;
    for (int micro = 0; micro < kMicroSteps; ++micro) {
      bad = bad || IsBad(kWindow, micro, ParamId{p});
    }
    const auto at = static_cast<size_t>(p);
    EXPECT_EQ(some_bad_weights[at] == all_good_weights[at], !bad) << "parameter " << p;
    good += bad ? 0 : 1;
  }
  EXPECT_EQ(good, 1);
}

// Hand-computed, exact in fp32: three of four bad with s = 1/2, the last one good or bad.
TEST(TigerShrinkTest, Row04GainsGoToOneAndTheOthersToZero) {
  OptimOptions options = Options({WeightStorage::kFp32, MomentumStorage::kFp32});
  options.shrink_ratio = 0.5;
  options.weight_decay = 0;
  for (const uint8_t last : {uint8_t{0}, uint8_t{1}}) {
    Single single(options);
    single.worker.SetWeights([](ParamId, int64_t) { return 3.0F; });
    single.worker.Fold(MicroStepPlace::kFirst, 1, 1,
                       [](ParamId, int64_t, int64_t) { return -1.0F; });
    single.flags.assign(single.flags.size(), last);
    single.counts.assign(single.counts.size(), 3);
    StepInput input;
    input.learning_rate = 0.25;
    input.left_out = single.left_out();
    input.shrinks = Tensor(single.counts.data(), {single.params()}, DType::kI32, Device{});
    single.worker.optimizer->Step(single.worker.ctx, input);
    const Elements after = single.Weights();
    // 3 shrinks to 3/8 (1 + 2/8 for gains); then the rate is 1/4 of the shrunk RMS, or 1/8.
    const float step = last != 0 ? 0.0F : 1.0F;
    EXPECT_EQ(after[0], std::vector<float>(after[0].size(), 0.375F * (1 + 0.25F * step)));
    EXPECT_EQ(after[1], std::vector<float>(after[1].size(), 0.375F * (1 + 0.25F * step)));
    EXPECT_EQ(after[5], std::vector<float>(after[5].size(), 1.25F + 0.125F * step)) << "gain";
    EXPECT_EQ(after[6], std::vector<float>(after[6].size(), 0.375F + 0.125F * step)) << "bias";
  }
}

TEST(TigerShrinkTest, ARatioOfOneLeavesWeightsAlone) {
  OptimOptions options = Options({WeightStorage::kBf16, MomentumStorage::kFp32});
  options.shrink_ratio = 1;
  Single single(options);
  const Elements before = single.Weights();
  single.flags.assign(single.flags.size(), 1);
  single.counts.assign(single.counts.size(), 4);
  single.Step(0);
  EXPECT_EQ(single.Weights(), before);
}

}  // namespace
}  // namespace panthera
