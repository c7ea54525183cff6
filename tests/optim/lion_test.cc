#include "optim/lion.h"

#include <cmath>
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
using testing::reference::OptimizedTensor;

constexpr double kUnit = 0x1p-24;

double Wide(float x) { return static_cast<double>(x); }

class LionReferenceTest : public ::testing::TestWithParam<MomentumStorage> {};

// Step by step from the same start. The blend whose sign counts and the new momentum each have five
// roundings in fp32, and the momentum one of its storage.
TEST_P(LionReferenceTest, EveryClassFollowsTheReference) {
  OptimOptions options = testing::OptionsFor(Algorithm::kLion);
  options.momentum = GetParam();
  options.weight_decay = 0.1;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, options);
  worker.SetWeights([](ParamId id, int64_t i) { return Noise(1, id, i); });
  constexpr double kRate = 0.01;
  constexpr float kScale = 0.5F;
  const double storage = GetParam() == MomentumStorage::kBf16 ? UnitRoundoff(DType::kBF16) : kUnit;
  int64_t flips = 0;
  for (int step = 0; step < 5; ++step) {
    Elements theta_before = EmptyElements(worker.store);
    Elements momentum_before = EmptyElements(worker.store);
    worker.CopyWeights(theta_before);
    worker.CopyState("momentum", momentum_before);
    const auto seed = static_cast<uint64_t>(100 + step);
    StepInput input;
    input.step = step;
    input.learning_rate = kRate;
    worker.StepWithGradients(
        input, [&](ParamId id, int64_t i) { return Noise(seed, id, i); }, kScale);
    Elements theta = EmptyElements(worker.store);
    Elements momentum = EmptyElements(worker.store);
    worker.CopyWeights(theta);
    worker.CopyState("momentum", momentum);
    for (int p = 0; p < worker.store.num_params(); ++p) {
      const auto at = static_cast<size_t>(p);
      OptimizedTensor expected;
      expected.kind = worker.store.spec(ParamId{p}).kind;
      expected.theta.assign(theta_before[at].begin(), theta_before[at].end());
      expected.moment1.assign(momentum_before[at].begin(), momentum_before[at].end());
      const OptimizedTensor before = expected;
      std::vector<double> g(theta[at].size());
      for (size_t i = 0; i < g.size(); ++i) {
        g[i] = Wide(kScale * Noise(seed, ParamId{p}, static_cast<int64_t>(i)));
      }
      LionStep(expected, g, kRate, {0.95, 0.98, 0.1, 0});
      for (size_t i = 0; i < g.size(); ++i) {
        const double m = std::fabs(before.moment1[i]);
        const double momentum_scale = 0.98 * m + 0.02 * std::fabs(g[i]);
        ASSERT_NEAR(Wide(momentum[at][i]), expected.moment1[i],
                    (5 * kUnit + storage) * momentum_scale);
        const double blend = 0.95 * before.moment1[i] + 0.05 * g[i];
        const double blend_bound = 5 * kUnit * (0.95 * m + 0.05 * std::fabs(g[i]));
        const double size = std::fabs(before.theta[i]);
        double bound = 4 * kUnit * kRate * (1 + 0.1 * size) + kUnit * (size + kRate);
        if (std::fabs(blend) <= blend_bound) {
          bound += 2 * kRate;
          ++flips;
        }
        ASSERT_NEAR(Wide(theta[at][i]), expected.theta[i], bound)
            << worker.store.spec(ParamId{p}).name << " " << i;
      }
    }
  }
  EXPECT_LT(flips, 10) << "the comparison must not excuse many elements";
}

INSTANTIATE_TEST_SUITE_P(Storages, LionReferenceTest,
                         ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16));

// The sign is that of the interpolation with the old momentum: after a large positive gradient, a
// small negative one must still step down although the gradient points up.
TEST(LionTest, SignComesFromTheOldMomentumAndTheNewGradient) {
  OptimOptions options = testing::OptionsFor(Algorithm::kLion);
  options.weight_decay = 0;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, options);
  StepInput input;
  input.learning_rate = 0.25;
  const auto weight = [&] {
    Elements out = EmptyElements(worker.store);
    worker.CopyWeights(out);
    return out[0][0];
  };
  // m = 0.02
  worker.StepWithGradients(input, [](ParamId, int64_t) { return 1.0F; });
  EXPECT_EQ(weight(), -0.25F);
  // 0.95 * 0.02 - 0.05 * 0.25 > 0
  worker.StepWithGradients(input, [](ParamId, int64_t) { return -0.25F; });
  EXPECT_EQ(weight(), -0.5F);
  // m = 0.98 * 0.02 - 0.02 * 0.25 = 0.0146; 0.95 * 0.0146 - 0.05 * 0.5 < 0
  worker.StepWithGradients(input, [](ParamId, int64_t) { return -0.5F; });
  EXPECT_EQ(weight(), -0.25F);
}

TEST(LionDeathTest, RefusesToFold) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, testing::OptionsFor(Algorithm::kLion));
  EXPECT_DEATH(
      worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId, int64_t, int64_t) { return 1.0F; }),
      "lion cannot fold");
}

}  // namespace
}  // namespace panthera
