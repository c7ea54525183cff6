#include "optim/adamw.h"

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
constexpr double kRate = 0.01;
constexpr double kDecay = 0.1;

double Wide(float x) { return static_cast<double>(x); }

class AdamWReferenceTest : public ::testing::TestWithParam<MomentumStorage> {};

// Step by step from the same start. Each moment has five roundings, and the first one of its
// storage; the direction inherits the first moment's error divided by the root of the second, and
// has a relative error of 10 units of its own.
TEST_P(AdamWReferenceTest, EveryClassFollowsTheReference) {
  OptimOptions options = testing::OptionsFor(Algorithm::kAdamW);
  options.momentum = GetParam();
  options.weight_decay = kDecay;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, options);
  worker.SetWeights([](ParamId id, int64_t i) { return Noise(1, id, i); });
  const double storage = GetParam() == MomentumStorage::kBf16 ? UnitRoundoff(DType::kBF16) : kUnit;
  for (int step = 0; step < 5; ++step) {
    Elements theta[2] = {EmptyElements(worker.store), EmptyElements(worker.store)};
    Elements moment1[2] = {EmptyElements(worker.store), EmptyElements(worker.store)};
    Elements moment2[2] = {EmptyElements(worker.store), EmptyElements(worker.store)};
    worker.CopyWeights(theta[0]);
    worker.CopyState("moment1", moment1[0]);
    worker.CopyState("moment2", moment2[0]);
    const auto seed = static_cast<uint64_t>(100 + step);
    StepInput input;
    input.step = step;
    input.learning_rate = kRate;
    worker.StepWithGradients(input, [&](ParamId id, int64_t i) { return Noise(seed, id, i); });
    worker.CopyWeights(theta[1]);
    worker.CopyState("moment1", moment1[1]);
    worker.CopyState("moment2", moment2[1]);
    for (int p = 0; p < worker.store.num_params(); ++p) {
      const auto at = static_cast<size_t>(p);
      OptimizedTensor expected;
      expected.kind = worker.store.spec(ParamId{p}).kind;
      expected.theta.assign(theta[0][at].begin(), theta[0][at].end());
      expected.moment1.assign(moment1[0][at].begin(), moment1[0][at].end());
      expected.moment2.assign(moment2[0][at].begin(), moment2[0][at].end());
      const OptimizedTensor before = expected;
      std::vector<double> g(theta[0][at].size());
      for (size_t i = 0; i < g.size(); ++i) {
        g[i] = Wide(Noise(seed, ParamId{p}, static_cast<int64_t>(i)));
      }
      AdamWStep(expected, g, kRate, step + 1, {0.9, 0.95, kDecay, 1e-8});
      const double unbias1 = 1 - std::pow(0.9, step + 1);
      const double unbias2 = 1 - std::pow(0.95, step + 1);
      for (size_t i = 0; i < g.size(); ++i) {
        const double scale1 = 0.9 * std::fabs(before.moment1[i]) + 0.1 * std::fabs(g[i]);
        ASSERT_NEAR(Wide(moment1[1][at][i]), expected.moment1[i], (5 * kUnit + storage) * scale1);
        ASSERT_NEAR(Wide(moment2[1][at][i]), expected.moment2[i], 6 * kUnit * expected.moment2[i]);
        const double root = std::sqrt(expected.moment2[i] / unbias2) + 1e-8;
        const double direction = expected.moment1[i] / unbias1 / root;
        const double direction_bound =
            5 * kUnit * scale1 / unbias1 / root + 10 * kUnit * std::fabs(direction);
        const double size = std::fabs(before.theta[i]);
        ASSERT_NEAR(Wide(theta[1][at][i]), expected.theta[i],
                    kRate * (direction_bound + 4 * kUnit * (std::fabs(direction) + kDecay * size)) +
                        kUnit * (size + kRate))
            << worker.store.spec(ParamId{p}).name << " " << i << " step " << step;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Storages, AdamWReferenceTest,
                         ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16));

// With bias correction the first step has the size of the rate whatever the gradient's.
TEST(AdamWTest, FirstStepIsTheSignOfTheGradientTimesTheRate) {
  OptimOptions options = testing::OptionsFor(Algorithm::kAdamW);
  options.weight_decay = 0;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, options);
  StepInput input;
  input.learning_rate = 0.25;
  worker.StepWithGradients(input, [](ParamId, int64_t i) {
    return (i % 2 == 0 ? 1.0F : -1.0F) * std::ldexp(1.0F, static_cast<int>(i % 10) - 5);
  });
  Elements weights = EmptyElements(worker.store);
  worker.CopyWeights(weights);
  for (const std::vector<float>& param : weights) {
    for (size_t i = 0; i < param.size(); ++i) {
      // epsilon is up to 2^5 * 1e-8 of the root, the roundings of the quotient 8 units.
      ASSERT_NEAR(param[i], i % 2 == 0 ? -0.25F : 0.25F, 0.25 * (3.2e-7 + 8 * kUnit));
    }
  }
}

TEST(AdamWTest, UnseenElementsOnlyDecay) {
  OptimOptions options = testing::OptionsFor(Algorithm::kAdamW);
  options.weight_decay = 0.5;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, options);
  worker.SetWeights([](ParamId, int64_t) { return 1.0F; });
  StepInput input;
  input.learning_rate = 0.25;
  worker.StepWithGradients(input, [](ParamId, int64_t) { return 0.0F; });
  Elements weights = EmptyElements(worker.store);
  worker.CopyWeights(weights);
  for (int p = 0; p < worker.store.num_params(); ++p) {
    const ParamKind kind = worker.store.spec(ParamId{p}).kind;
    const bool decays = kind == ParamKind::kMatrix || kind == ParamKind::kEmbedding;
    for (const float weight : weights[static_cast<size_t>(p)]) {
      ASSERT_EQ(weight, decays ? 0.875F : 1.0F);
    }
  }
}

}  // namespace
}  // namespace panthera
