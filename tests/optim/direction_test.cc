// Steps that travel as directions: ranks which repeat each other's updates hold the bits of ranks
// that send each other their weights.
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "optim/direction_exchange.h"
#include "tests/optim/small_training.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using testing::NoPoison;
using testing::Outcome;
using testing::Poison;
using testing::RankWorld;
using testing::RunRanks;
using testing::SmallTraining;
using testing::Worker;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kSteps = 4;

// Tensors of every kind, matrices, the table and gains, on several ranks, in the first, a middle
// and the last micro-step.
float SomeTensors(int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
  const bool bad = (step == 1 && id.index == 3 && micro == 0 && part == 3 && i == 2000) ||
                   (step == 1 && id.index == 0 && micro == 1 && part == 0 && i == 13 * 37 - 1) ||
                   (step == 2 && id.index == 1 && micro == 2 && part == 2 && i == 0) ||
                   (step == 2 && id.index == 5 && micro == 2 && part == 1 && i == 3) ||
                   (step == 3 && id.index == 0 && micro == 2 && part == 1 && i == 5);
  return bad ? kInfinity : 0.0F;
}

class DirectionExchangeTest : public ::testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, DirectionExchangeTest,
                         ::testing::ValuesIn(testing::ComputeDevices()), testing::DeviceName);

// Copies a value for each element of `to`, fp32 or bytes, from the host.
template <typename T>
void Fill(Worker& worker, const Tensor& to, T value) {
  std::vector<T> values(static_cast<size_t>(to.elements()), value);
  Copy(worker.ctx.compute(), Tensor(values.data(), to.shape(), to.dtype(), Device{}), to);
  worker.ctx.compute().Synchronize();
}

// Whole numbers and halves, so that every rank's step is exact: an element of a tensor that goes up
// by 1 / 2 after it was halved, and a table that sends no message.
TEST_P(DirectionExchangeTest, EveryRankRepeatsWhatAMessageSaysAndTheRestTravelsByItsWeights) {
  for (const int ranks : {1, 2, 3}) {
    RunRanks(ranks, [&](RankWorld& world) {
      OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
      options.weights = WeightStorage::kBf16Plus8;
      options.publish = PublishMode::kDirection;
      Worker worker(GetParam(), world.ledger(), world.communicator(), options);
      DirectionExchange exchange(worker.ctx, worker.store, worker.comm,
                                 [](GroupId group) -> std::optional<RateUnit> {
                                   if (group == testing::kTable) {
                                     return std::nullopt;
                                   }
                                   return RateUnit::kTensor;
                                 });
      EXPECT_FALSE(exchange.includes(testing::kTable));
      EXPECT_FALSE(exchange.includes(testing::kVectors));
      worker.SetWeights([](ParamId id, int64_t i) { return testing::SmallInteger(3, id, i); });
      worker.store.Publish(worker.comm, worker.ctx.compute(), worker.ctx.exchange());
      // Each rank changes its rows of the table.
      worker.SetWeights([](ParamId id, int64_t i) {
        return testing::SmallInteger(id.index == 0 ? 4 : 3, id, i);
      });
      const auto rule = [](ParamId) { return cuda::ParamRule{}; };
      for (const GroupId group : {testing::kBlock0, testing::kBlock1}) {
        ASSERT_TRUE(exchange.includes(group));
        const DirectionMessage message = exchange.own(group, worker.ctx.compute());
        Fill(worker, message.factors, 0.5F);
        Fill(worker, message.rates, 0.5F);
        // Up, up, at rest, and no direction at all.
        Fill(worker, message.codes, uint8_t{0b00'11'10'10});
        exchange.ApplyOwn(worker.ctx.compute(), group, 1, rule);
      }
      exchange.Publish(worker.ctx, 1, rule);
      const std::string replica = worker.ReplicaBytes();
      Worker expected(GetParam(), world.ledger(), world.communicator(), options);
      expected.SetWeights([](ParamId id, int64_t i) {
        const float before = testing::SmallInteger(id.index == 0 ? 4 : 3, id, i);
        const bool sends = id.index >= 1 && id.index <= 4;
        return sends ? before / 2 + (i % 4 < 2 ? 0.5F : 0.0F) : before;
      });
      expected.store.Publish(worker.comm, expected.ctx.compute(), expected.ctx.exchange());
      EXPECT_TRUE(replica == expected.ReplicaBytes()) << ranks << " ranks";
    });
  }
}

using Case = std::tuple<Device, Algorithm, Accumulation, WeightStorage, MomentumStorage>;

class DirectionTest : public ::testing::TestWithParam<Case> {
 protected:
  static OptimOptions Options(PublishMode publish) {
    const auto [device, algorithm, accumulate, weights, momentum] = GetParam();
    OptimOptions options = testing::TrainingOptions(algorithm, accumulate, weights, momentum);
    options.weight_decay = 0.1;
    options.publish = publish;
    CHECK_OK(options.Finish());
    return options;
  }
  // Trains both ways on `ranks` ranks and compares everything. Weights travel on the CPU, which is
  // fast: a GPU has its bits (GpuUpdateTest).
  static void ExpectTheSameBits(OptimOptions options, int ranks, const Poison& poison) {
    options.publish = PublishMode::kWeights;
    const Outcome expected = SmallTraining(options, ranks, poison).Run(kSteps);
    options.publish = PublishMode::kDirection;
    const Device device = std::get<0>(GetParam());
    const Outcome actual = SmallTraining(options, ranks, poison, device).Run(kSteps);
    EXPECT_TRUE(actual.weights == expected.weights);
    EXPECT_TRUE(actual.state1 == expected.state1);
    EXPECT_EQ(actual.masked, expected.masked);
    EXPECT_EQ(actual.skipped, expected.skipped);
    EXPECT_EQ(actual.replicas.size(), static_cast<size_t>(ranks));
    for (const std::string& replica : actual.replicas) {
      EXPECT_TRUE(replica == actual.replicas[0]) << "ranks differ";
    }
    // Low bits are part of them with directions only.
    if (options.weights != WeightStorage::kBf16Plus8) {
      EXPECT_TRUE(actual.replicas == expected.replicas);
    }
  }
};

TEST_P(DirectionTest, Row27DirectionGatherEqualsWeightGather) {
  int lazy_ways = 0;
  for (const LazyRows lazy_rows : {LazyRows::kOff, LazyRows::kChange, LazyRows::kChangeAndState}) {
    OptimOptions options = Options(PublishMode::kDirection);
    options.lazy_rows = lazy_rows;
    if (!options.Finish().ok()) {
      continue;
    }
    ++lazy_ways;
    // Emulated threads are slow; with skipping, poisoned steps are not taken at all.
    const bool on_cpu = std::get<0>(GetParam()).is_cpu();
    const bool skips = options.nonfinite == NonFinitePolicy::kSkip;
    for (const int ranks : on_cpu ? std::vector<int>{1, 2, 3, 4} : std::vector<int>{3}) {
      for (const bool poisoned : {false, true}) {
        if (!on_cpu && poisoned == skips) {
          continue;
        }
        SCOPED_TRACE(
            absl::StrCat(EnumName(lazy_rows), " on ", ranks, " ranks, poisoned: ", poisoned));
        ExpectTheSameBits(options, ranks, poisoned ? Poison(SomeTensors) : Poison(NoPoison));
      }
    }
  }
  EXPECT_EQ(lazy_ways, std::get<2>(GetParam()) == Accumulation::kMomentum ? 2 : 3);
}

TEST_P(DirectionTest, ClippedGradientsGiveTheBitsOfWeightsThatTravelToo) {
  OptimOptions options = Options(PublishMode::kDirection);
  options.clip_norm = 0.5;
  if (options.accumulate == Accumulation::kMomentum) {
    EXPECT_FALSE(options.Finish().ok());
  } else {
    CHECK_OK(options.Finish());
    ExpectTheSameBits(options, 2, NoPoison);
  }
}

// Its rate is one for all rows, and so is what a message says of it.
TEST_P(DirectionTest, ATableScaledAsAWholeHasTheBitsOfWeightsThatTravelToo) {
  OptimOptions options = Options(PublishMode::kDirection);
  options.table_rms = TableRms::kTable;
  if (options.algorithm == Algorithm::kTiger) {
    CHECK_OK(options.Finish());
    ExpectTheSameBits(options, 2, SomeTensors);
  } else {
    EXPECT_FALSE(options.Finish().ok());
  }
}

// Without momentum there is no direction: weights decay and go nowhere, on every rank.
TEST_P(DirectionTest, WhatHasNoMomentumDoesNotDrift) {
  OptimOptions options = Options(PublishMode::kDirection);
  options.weight_decay = 0;
  RunRanks(3, [&](RankWorld& world) {
    Worker worker(std::get<0>(GetParam()), world.ledger(), world.communicator(), options);
    worker.SetWeights([](ParamId id, int64_t i) { return 0.5F * testing::Noise(77, id, i); });
    worker.store.Publish(worker.comm, worker.ctx.compute(), worker.ctx.exchange());
    const std::string before = worker.ReplicaBytes();
    StepInput input;
    input.learning_rate = 0.01;
    if (options.accumulate == Accumulation::kMomentum) {
      worker.optimizer->Step(worker.ctx, input);
    } else {
      worker.StepWithGradients(input, [](ParamId, int64_t) { return 0.0F; });
    }
    worker.optimizer->Publish(worker.ctx);
    EXPECT_TRUE(worker.ReplicaBytes() == before);
    // What the test above could miss if nothing were ever replayed.
    input.step = 1;
    if (options.accumulate == Accumulation::kMomentum) {
      worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId, int64_t, int64_t) { return 1.0F; });
      worker.optimizer->Step(worker.ctx, input);
    } else {
      worker.StepWithGradients(input, [](ParamId, int64_t) { return 1.0F; });
    }
    worker.optimizer->Publish(worker.ctx);
    EXPECT_FALSE(worker.ReplicaBytes() == before);
  });
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto [device, algorithm, accumulate, weights, momentum] = info.param;
  std::string name =
      absl::StrCat(device.is_cpu() ? "cpu" : "cuda", "_", EnumName(algorithm), "_",
                   EnumName(accumulate), "_", EnumName(weights), "_", EnumName(momentum));
  for (char& c : name) {
    c = c == '+' ? 'p' : c;
  }
  return name;
}

constexpr auto kStorages = [] {
  return ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16);
};
constexpr auto kMomenta = [] {
  return ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16);
};

INSTANTIATE_TEST_SUITE_P(Folding, DirectionTest,
                         ::testing::Combine(::testing::ValuesIn(testing::ComputeDevices()),
                                            ::testing::Values(Algorithm::kTiger),
                                            ::testing::Values(Accumulation::kMomentum), kStorages(),
                                            kMomenta()),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Summing, DirectionTest,
                         ::testing::Combine(::testing::ValuesIn(testing::ComputeDevices()),
                                            ::testing::Values(Algorithm::kTiger, Algorithm::kLion),
                                            ::testing::Values(Accumulation::kGradient), kStorages(),
                                            kMomenta()),
                         CaseName);

}  // namespace
}  // namespace panthera
