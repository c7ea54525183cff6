// Ranks do not change the mathematics: the same global batch, cut into micro-steps and ranks in any
// way, gives the same step.
#include <cmath>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "tests/equivalence/sample_sums.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::SampleSums;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kSamples = 12;
constexpr double kBeta = 0.965;

struct FirstStep {
  StepResult result;
  Tensors tensors;
};

FirstStep TakeFirstStep(const TinyRun& run, int ranks) {
  FirstStep first;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run.options, world, rank_world.ledger());
    const DataLoader data = run.OpenData();
    const absl::StatusOr<StepResult> result = trainer->TrainStep(0, &data);
    ASSERT_TRUE(result.ok()) << result.status();
    const std::lock_guard<std::mutex> lock(mutex);
    first.result = *result;
    testing::CopyShards(*trainer, first.tensors);
  });
  return first;
}

class RanksTest : public ::testing::TestWithParam<std::tuple<int, Accumulation, WeightStorage>> {
 protected:
  RanksTest() {
    run_.options.optim.accumulate = std::get<1>(GetParam());
    run_.options.optim.weights = std::get<2>(GetParam());
  }

  const int ranks_ = std::get<0>(GetParam());
  TinyRun run_{/*steps=*/4};
};

INSTANTIATE_TEST_SUITE_P(
    Cuts, RanksTest,
    ::testing::Combine(::testing::Values(1, 2, 3, 4, 6, 12),
                       ::testing::Values(Accumulation::kMomentum, Accumulation::kGradient),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8)),
    [](const auto& test) {
      return std::to_string(std::get<0>(test.param)) + "RanksInThe" +
             (std::get<1>(test.param) == Accumulation::kMomentum ? "Momentum" : "Gradient") +
             (std::get<2>(test.param) == WeightStorage::kFp32 ? "OfFp32" : "OfBf16");
    });

TEST_P(RanksTest, Row02FirstStepIsThatOfTheWholeBatch) {
  const SampleSums sums = testing::SumOverFirstStep(run_);

  const FirstStep first = TakeFirstStep(run_, ranks_);

  // Losses are summed in double, in another order at most.
  const double loss = sums.loss / kSamples;
  EXPECT_NEAR(first.result.loss_nats, loss, 1e-12 * loss);
  double norm_of_mean = 0;
  double norm_of_bounds = 0;
  for (const auto& [name, gradient] : sums.gradient) {
    const std::vector<float>& momentum = first.tensors.at(name + "|momentum");
    const std::vector<double> bounds =
        testing::StepBounds(run_.options, ranks_, sums.magnitude.at(name));
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double mean = gradient[i] / kSamples;
      const double bound = bounds[i] / kSamples;
      ASSERT_NEAR(momentum[i], (1 - kBeta) * mean, (1 - kBeta) * bound) << name << " " << i;
      norm_of_mean += mean * mean;
      norm_of_bounds += bound * bound;
    }
  }
  if (run_.options.optim.accumulate == Accumulation::kGradient) {
    // By the triangle inequality; the squares are summed in fp32 blocks of at most 1,024 elements.
    norm_of_mean = std::sqrt(norm_of_mean);
    EXPECT_NEAR(first.result.gradient_norm, norm_of_mean,
                std::sqrt(norm_of_bounds) + 1024 * UnitRoundoff(DType::kF32) * norm_of_mean);
  }
}

TEST_P(RanksTest, WeightsAfterOneStepDifferOnlyWhereTheMomentumIsNearZero) {
  const SampleSums sums = testing::SumOverFirstStep(run_);
  const FirstStep one = TakeFirstStep(run_, 1);

  const FirstStep many = TakeFirstStep(run_, ranks_);

  int64_t compared = 0;
  for (const auto& [name, gradient] : sums.gradient) {
    const std::vector<double> bounds =
        testing::StepBounds(run_.options, ranks_, sums.magnitude.at(name));
    for (size_t i = 0; i < gradient.size(); ++i) {
      if (std::abs(gradient[i]) > bounds[i]) {
        ASSERT_EQ(many.tensors.at(name)[i], one.tensors.at(name)[i]) << name << " " << i;
        ++compared;
      }
    }
  }
  // The exception stays one: most weights were compared.
  EXPECT_GT(compared, 3000);
}

struct Cut {
  const char* name;
  int ranks;
  int64_t micro_batch;
};

class MicroBatchTest : public ::testing::TestWithParam<Cut> {};

INSTANTIATE_TEST_SUITE_P(
    Cuts, MicroBatchTest,
    ::testing::Values(Cut{"OneRankOneStep", 1, 12}, Cut{"OneRankFourSteps", 1, 3},
                      Cut{"FourRanksOneStep", 4, 3}, Cut{"TwoRanksTwoSteps", 2, 3},
                      Cut{"ThreeRanksTwoSteps", 3, 2}, Cut{"SixRanksOneStep", 6, 2}),
    [](const auto& test) { return test.param.name; });

// Samples that share a micro-batch are summed inside the products, so the bound is that of a whole
// backward pass, in the norm: some 30 operations, each a sum of at most the micro-batch's tokens,
// on either side.
TEST_P(MicroBatchTest, FirstStepIsThatOfSingleSamples) {
  TinyRun run(/*steps=*/4);
  const SampleSums sums = testing::SumOverFirstStep(run);
  run.options.train.micro_batch = GetParam().micro_batch;

  const FirstStep first = TakeFirstStep(run, GetParam().ranks);

  const double terms =
      static_cast<double>(GetParam().micro_batch * run.options.model.sequence_length);
  const double bound = 2 * 30 * terms * UnitRoundoff(DType::kF32);
  EXPECT_NEAR(first.result.loss_nats, sums.loss / kSamples, bound * sums.loss / kSamples);
  for (const auto& [name, gradient] : sums.gradient) {
    const std::vector<float>& momentum = first.tensors.at(name + "|momentum");
    double difference = 0;
    double norm = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double expected = (1 - kBeta) * gradient[i] / kSamples;
      difference += (momentum[i] - expected) * (momentum[i] - expected);
      norm += expected * expected;
    }
    EXPECT_LT(std::sqrt(difference / norm), bound) << name;
  }
}

TEST(LossBandTest, RunsOnAnyNumberOfRanksLearnTheSame) {
  constexpr int64_t kSteps = 60;
  TinyRun run(kSteps);
  std::vector<double> final_losses;
  for (const int ranks : {1, 2, 3, 4}) {
    double loss = 0;
    RunRanks(ranks, [&](RankWorld& rank_world) {
      World world = testing::WorldOf(rank_world);
      const std::unique_ptr<Trainer> trainer =
          testing::NewTrainer(run.options, world, rank_world.ledger());
      const DataLoader data = run.OpenData();
      double sum = 0;
      for (int64_t step = 0; step < kSteps; ++step) {
        const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
        ASSERT_TRUE(result.ok()) << result.status();
        sum += step >= kSteps - 10 ? result->loss_nats / 10 : 0;
      }
      if (rank_world.rank() == 0) {
        loss = sum;
      }
    });
    final_losses.push_back(loss);
  }

  const double start = std::log(23.0);
  for (const double loss : final_losses) {
    // Signs of momentum at rounding level differ, so the runs drift apart; all must have learned,
    // and stay within 1% of each other over the last ten steps.
    EXPECT_LT(loss, 0.85 * start);
    EXPECT_NEAR(loss, final_losses[0], 0.01 * final_losses[0]);
  }
}

}  // namespace
}  // namespace panthera
