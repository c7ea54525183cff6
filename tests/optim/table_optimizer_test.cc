// The embedding table with an optimizer of its own: each of the two does what it does alone.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "runtime/base/check.h"
#include "runtime/comm/self_communicator.h"
#include "tests/optim/small_model.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::Noise;
using testing::SmallInteger;
using testing::Worker;

constexpr ParamId kTable{0};
constexpr double kRate = 0.01;
constexpr double kTableRate = 0.003;
constexpr double kTableDecay = 0.3;
constexpr double kShrink = 0.75;
constexpr int64_t kMicroSteps = 2;
constexpr int64_t kRanks = 2;
// Of a contribution in the mean: exact, as are sums of small integers.
constexpr float kWeight = 0.25F;

struct State {
  Elements weights;
  Elements state1;
  Elements state2;
};

// What one rank of a small model holds, and the ways to its optimizer.
struct Single {
  Single(const OptimOptions& options, Device device) : worker(device, ledger, comm, options) {
    worker.SetWeights([](ParamId id, int64_t i) { return 0.5F * Noise(77, id, i); });
  }

  State Copy() {
    State state{EmptyElements(worker.store), EmptyElements(worker.store),
                EmptyElements(worker.store)};
    worker.CopyWeights(state.weights);
    worker.CopyState("momentum", state.state1);
    worker.CopyState("moment1", state.state1);
    worker.CopyState("moment2", state.state2);
    return state;
  }

  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker;
};

float Contribution(int step, int64_t micro, int64_t rank, ParamId id, int64_t i) {
  return SmallInteger(static_cast<uint64_t>(100 * step + 10 * micro + rank), id, i);
}

StepInput InputOf(int step, double table_rate = kTableRate) {
  StepInput input;
  input.step = step;
  input.learning_rate = kRate;
  input.table_learning_rate = table_rate;
  input.rounding_key = 9;
  return input;
}

// Steps on the same mean gradients for every accumulation.
State Train(const OptimOptions& options, Device device, const std::vector<StepInput>& inputs) {
  Single single(options, device);
  for (const StepInput& input : inputs) {
    const auto step = static_cast<int>(input.step);
    if (options.accumulate == Accumulation::kGradient) {
      single.worker.StepWithGradients(input, [&](ParamId id, int64_t i) {
        float sum = 0;
        for (int64_t n = 0; n < kMicroSteps * kRanks; ++n) {
          sum += Contribution(step, n / kRanks, n % kRanks, id, i);
        }
        return kWeight * sum;
      });
      continue;
    }
    for (int64_t micro = 0; micro < kMicroSteps; ++micro) {
      single.worker.Fold(micro == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater, kWeight,
                         kRanks, [&](ParamId id, int64_t i, int64_t rank) {
                           return Contribution(step, micro, rank, id, i);
                         });
    }
    single.worker.optimizer->Step(single.worker.ctx, input);
  }
  return single.Copy();
}

using Case = std::tuple<Algorithm, Accumulation, WeightStorage, MomentumStorage>;

OptimOptions Options(const Case& c) {
  OptimOptions options;
  options.algorithm = std::get<0>(c);
  options.accumulate = std::get<1>(c);
  options.weights = std::get<2>(c);
  options.momentum = std::get<3>(c);
  options.lazy_rows = LazyRows::kOff;
  options.shrink_ratio = kShrink;
  CHECK_OK(options.Finish());
  return options;
}

OptimOptions WithAdamWOnTheTable(OptimOptions options) {
  options.table.optimizer = TableOptimizer::kAdamW;
  options.table.weight_decay = kTableDecay;
  CHECK_OK(options.Finish());
  return options;
}

// AdamW for everything, with the hyper-parameters that the table has above.
OptimOptions AdamWAlone(const Case& c) {
  OptimOptions options =
      Options({Algorithm::kAdamW, Accumulation::kGradient, std::get<2>(c), std::get<3>(c)});
  options.weight_decay = kTableDecay;
  return options;
}

class TableOptimizerTest : public ::testing::TestWithParam<Case> {};

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto [algorithm, accumulate, weights, momentum] = info.param;
  std::string name = absl::StrCat(EnumName(algorithm), "_", EnumName(accumulate), "_",
                                  EnumName(weights), "_", EnumName(momentum));
  for (char& c : name) {
    c = c == '+' ? 'p' : c;
  }
  return name;
}

constexpr auto kStorages = [] {
  return ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16,
                           WeightStorage::kBf16PlusFp32);
};
constexpr auto kMomenta = [] {
  return ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16);
};

INSTANTIATE_TEST_SUITE_P(Tiger, TableOptimizerTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger),
                                            ::testing::Values(Accumulation::kMomentum,
                                                              Accumulation::kGradient),
                                            kStorages(), kMomenta()),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Lion, TableOptimizerTest,
                         ::testing::Combine(::testing::Values(Algorithm::kLion),
                                            ::testing::Values(Accumulation::kGradient), kStorages(),
                                            kMomenta()),
                         CaseName);

// Three steps with a rate of the table that is not the others', and of AdamW alone.
TEST_P(TableOptimizerTest, TheTableIsThatOfAdamWAloneAndTheRestThatOfTheOtherAlone) {
  const OptimOptions options = Options(GetParam());
  for (const Device device : testing::ComputeDevices()) {
    std::vector<StepInput> inputs;
    std::vector<StepInput> of_table;
    for (int step = 0; step < 3; ++step) {
      inputs.push_back(InputOf(step));
      of_table.push_back(InputOf(step));
      of_table.back().learning_rate = kTableRate;
    }
    const State actual = Train(WithAdamWOnTheTable(options), device, inputs);
    const State table = Train(AdamWAlone(GetParam()), device, of_table);
    const State others = Train(options, device, inputs);
    for (size_t p = 0; p < actual.weights.size(); ++p) {
      const State& expected = p == static_cast<size_t>(kTable.index) ? table : others;
      EXPECT_TRUE(actual.weights[p] == expected.weights[p]) << "weights of parameter " << p;
      EXPECT_TRUE(actual.state1[p] == expected.state1[p]) << "state of parameter " << p;
      EXPECT_TRUE(actual.state2[p] == expected.state2[p]) << "moment2 of parameter " << p;
    }
  }
}

// nonfinite = "tiger" on the table, with storages that keep what shrinking gives.
using TableLeftOutTest = TableOptimizerTest;

INSTANTIATE_TEST_SUITE_P(Tiger, TableLeftOutTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger),
                                            ::testing::Values(Accumulation::kMomentum),
                                            ::testing::Values(WeightStorage::kFp32,
                                                              WeightStorage::kBf16PlusFp32),
                                            kMomenta()),
                         CaseName);

// Which micro-steps have a gradient of the table that is not finite.
using BadMicroSteps = std::array<bool, kMicroSteps>;

// How often the table shrinks, which is how many are bad.
int32_t Shrinks(const BadMicroSteps& bad) {
  return static_cast<int32_t>(std::count(bad.begin(), bad.end(), true));
}

// Step 0 is sound. In step 1 the table is left out of its bad micro-steps.
State TrainWithBadMicroSteps(const OptimOptions& options, Device device, const BadMicroSteps& bad) {
  Single single(options, device);
  Worker& worker = single.worker;
  const int64_t params = worker.store.num_params();
  const Buffer flags(device, single.ledger, MemoryCategory::kData, "flags", params);
  const Buffer counts(device, single.ledger, MemoryCategory::kData, "counts",
                      params * SizeOf(DType::kI32));
  StepInput input = InputOf(1);
  input.left_out = flags.View({params}, DType::kU8);
  input.shrinks = counts.View({params}, DType::kI32);
  for (const int step : {0, 1}) {
    for (int64_t micro = 0; micro < kMicroSteps; ++micro) {
      const bool is_bad = step == 1 && bad[static_cast<size_t>(micro)];
      uint8_t flag = is_bad ? 1 : 0;
      Copy(worker.ctx.compute(), Tensor(&flag, {1}, DType::kU8, Device{}),
           input.left_out.Slice(kTable.index, kTable.index + 1));
      worker.Fold(
          micro == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater, kWeight, kRanks,
          [&](ParamId id, int64_t i, int64_t rank) {
            return is_bad && id == kTable ? NAN : Contribution(step, micro, rank, id, i);
          },
          input.left_out);
      worker.ctx.compute().Synchronize();
    }
    worker.optimizer->Step(worker.ctx, step == 0 ? InputOf(0) : input);
    int32_t shrinks = Shrinks(bad);
    Copy(worker.ctx.compute(), Tensor(&shrinks, {1}, DType::kI32, Device{}),
         input.shrinks.Slice(kTable.index, kTable.index + 1));
    worker.ctx.compute().Synchronize();
  }
  return single.Copy();
}

// What must come of it: shrunk by hand, then a step of AdamW alone on what was not left out, with
// none if the last micro-step was.
State ShrinkThenStep(const OptimOptions& adamw, Device device, const BadMicroSteps& bad) {
  Single single(adamw, device);
  Worker& worker = single.worker;
  const auto step = [&](int number, const BadMicroSteps& left_out) {
    StepInput input = InputOf(number);
    input.learning_rate = kTableRate;
    worker.StepWithGradients(input, [&](ParamId id, int64_t i) {
      float sum = 0;
      for (int64_t n = 0; n < kMicroSteps * kRanks; ++n) {
        const int64_t micro = n / kRanks;
        sum += left_out[static_cast<size_t>(micro)]
                   ? 0.0F
                   : Contribution(number, micro, n % kRanks, id, i);
      }
      return kWeight * sum;
    });
  };
  step(0, {});
  const State before = single.Copy();
  const auto factor = static_cast<float>(std::pow(kShrink, Shrinks(bad)));
  worker.SetWeights([&](ParamId id, int64_t i) {
    return factor * before.weights[static_cast<size_t>(id.index)][static_cast<size_t>(i)];
  });
  if (!bad.back()) {
    step(1, bad);
  }
  return single.Copy();
}

TEST_P(TableLeftOutTest, CountsAsZeroAndShrinksTheTableWhichTakesNoStepIfItIsTheLast) {
  const OptimOptions options = WithAdamWOnTheTable(Options(GetParam()));
  for (const Device device : testing::ComputeDevices()) {
    for (const BadMicroSteps& bad :
         {BadMicroSteps{false, false}, {true, false}, {false, true}, {true, true}}) {
      const State actual = TrainWithBadMicroSteps(options, device, bad);
      const State expected = ShrinkThenStep(AdamWAlone(GetParam()), device, bad);
      constexpr auto kAt = static_cast<size_t>(kTable.index);
      EXPECT_TRUE(actual.weights[kAt] == expected.weights[kAt]) << device << bad[0] << bad[1];
      EXPECT_TRUE(actual.state1[kAt] == expected.state1[kAt]) << device << bad[0] << bad[1];
      EXPECT_TRUE(actual.state2[kAt] == expected.state2[kAt]) << device << bad[0] << bad[1];
    }
  }
}

}  // namespace
}  // namespace panthera
