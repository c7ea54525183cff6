// Ranks do not change the mathematics, bit for bit where arithmetic is exact: several steps on
// gradients that are small integers, cut into micro-steps and ranks in every way.
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "optim/grad_sync.h"
#include "tests/optim/small_model.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::RankWorld;
using testing::RunRanks;
using testing::SmallInteger;
using testing::Worker;

// Micro-steps times ranks. The means are multiples of 1/4; with a decay of 1/2 the momentum after
// step s is a multiple of 2^-(s+2) below 8, so that six steps take 11 bits of an fp32. The sum of a
// rank's parts is at most 32, so that it travels in a bf16 unchanged.
constexpr int64_t kParts = 4;
constexpr int kSteps = 6;

struct Result {
  Elements weights;
  Elements state1;
  Elements state2;

  friend bool operator==(const Result&, const Result&) = default;
};

void Backward(Worker& worker, GradSync& sync, int64_t part) {
  for (int g = worker.store.num_groups() - 1; g >= 0; --g) {
    for (const ParamId id : worker.store.layout(GroupId{g}).params) {
      const GradientTarget target = sync.Target(id);
      for (int64_t i = 0; i < target.gradient.elements(); ++i) {
        float& element = target.gradient.data<float>()[i];
        element = SmallInteger(static_cast<uint64_t>(part), id, i) +
                  (target.accumulate == Accumulate::kAdd ? element : 0.0F);
      }
    }
    sync.GroupComplete(GroupId{g});
  }
}

void Train(Worker& worker, GradSync& sync, int rank, int64_t ranks) {
  worker.SetWeights([](ParamId id, int64_t i) { return 0.5F * testing::Noise(77, id, i); });
  worker.store.Publish(worker.comm, worker.ctx.compute(), worker.ctx.exchange());
  const int64_t micro_steps = kParts / ranks;
  for (int step = 0; step < kSteps; ++step) {
    for (int64_t micro = 0; micro < micro_steps; ++micro) {
      sync.BeginMicroStep(micro, micro_steps);
      Backward(worker, sync, step * kParts + micro * ranks + rank);
      sync.FinishMicroStep();
    }
    double loss = 1;
    sync.Judge(Tensor(&loss, {1}, DType::kF64, Device{}), /*targets=*/ranks);
    EXPECT_FALSE(sync.Report().value().nonfinite.found);
    StepInput input;
    input.step = step;
    input.learning_rate = 0.01;
    input.gradients = sync.gradient_shards();
    input.left_out = sync.left_out();
    input.shrinks = sync.shrinks();
    input.rounding_key = 5;
    worker.optimizer->Step(worker.ctx, input);
    worker.optimizer->Publish(worker.ctx);
  }
}

Result TrainOnRanks(int ranks, const OptimOptions& options) {
  Result result;
  {
    ParameterStore store;
    testing::AddSmallModel(store);
    result = {EmptyElements(store), EmptyElements(store), EmptyElements(store)};
  }
  RunRanks(ranks, [&](RankWorld& world) {
    Worker worker(Device{}, world.ledger(), world.communicator(), options);
    GradSync sync(options, worker.ctx, worker.store, worker.comm, *worker.optimizer);
    Train(worker, sync, world.rank(), ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      if (rank == world.rank()) {
        worker.CopyWeights(result.weights);
        worker.CopyState(options.algorithm == Algorithm::kAdamW ? "moment1" : "momentum",
                         result.state1);
        worker.CopyState("moment2", result.state2);
      }
      world.Meet();
    }
  });
  return result;
}

using Combination = std::tuple<Algorithm, Accumulation, WeightStorage, MomentumStorage>;

class ExactStepsTest : public ::testing::TestWithParam<Combination> {};

std::string NameOf(const ::testing::TestParamInfo<Combination>& test) {
  const auto& [algorithm, accumulate, weights, momentum] = test.param;
  std::string name = std::string(EnumNames<Algorithm>::kNames[static_cast<int>(algorithm)]) + "_" +
                     EnumNames<Accumulation>::kNames[static_cast<int>(accumulate)] + "_" +
                     EnumNames<WeightStorage>::kNames[static_cast<int>(weights)] + "_" +
                     EnumNames<MomentumStorage>::kNames[static_cast<int>(momentum)];
  for (char& c : name) {
    c = c == '+' ? '_' : c;
  }
  return name;
}

TEST_P(ExactStepsTest, EveryCutIntoRanksAndMicroStepsGivesTheSameBits) {
  const auto& [algorithm, accumulate, weights, momentum] = GetParam();
  OptimOptions options;
  options.algorithm = algorithm;
  options.accumulate = accumulate;
  options.weights = weights;
  options.momentum = momentum;
  options.beta1 = 0.5;
  ASSERT_EQ(options.Finish(), absl::OkStatus());

  const Result one = TrainOnRanks(1, options);

  for (const int ranks : {2, 4}) {
    EXPECT_TRUE(TrainOnRanks(ranks, options) == one) << ranks << " ranks";
  }
}

constexpr auto kAllWeights = {WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16,
                              WeightStorage::kBf16PlusFp32};

// A bf16 momentum is rounded after every fold, of which there are as many as micro-steps.
INSTANTIATE_TEST_SUITE_P(Folded, ExactStepsTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger),
                                            ::testing::Values(Accumulation::kMomentum),
                                            ::testing::ValuesIn(kAllWeights),
                                            ::testing::Values(MomentumStorage::kFp32)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(
    Summed, ExactStepsTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                       ::testing::Values(Accumulation::kGradient), ::testing::ValuesIn(kAllWeights),
                       ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16)),
    NameOf);

}  // namespace
}  // namespace panthera
