// Ranks do not change the mathematics: the same global batch, cut into micro-steps and ranks in any
// way, gives the same step.
#include <cmath>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>

#include "runtime/comm/self_communicator.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::HostTensor;
using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

constexpr int64_t kSamples = 12;

// What the first step on the tiny run has to do, sample by sample in double: of every parameter the
// sum of the samples' gradients and of their magnitudes, and the sum of the losses.
struct SampleSums {
  std::map<std::string, std::vector<double>> gradient;
  std::map<std::string, std::vector<double>> magnitude;
  double loss = 0;
};

class SampleSink final : public GradientSink {
 public:
  explicit SampleSink(const ParameterStore& params) : params_(params) {
    for (int i = 0; i < params.num_params(); ++i) {
      gradients_.push_back(HostTensor(params.spec({i}).shape, DType::kF32));
    }
  }

  void BeginSample() { written_.assign(gradients_.size(), false); }
  GradientTarget Target(ParamId id) override {
    const auto i = static_cast<size_t>(id.index);
    const bool first = !written_[i];
    written_[i] = true;
    return {gradients_[i], first ? Accumulate::kOverwrite : Accumulate::kAdd};
  }
  void GroupComplete(GroupId) override {}

  void AddTo(SampleSums& sums) const {
    for (size_t i = 0; i < gradients_.size(); ++i) {
      const std::string& name = params_.spec({static_cast<int>(i)}).name;
      const std::vector<double> gradient = testing::ToDoubles(gradients_[i]);
      sums.gradient[name].resize(gradient.size());
      sums.magnitude[name].resize(gradient.size());
      for (size_t j = 0; j < gradient.size(); ++j) {
        sums.gradient[name][j] += gradient[j];
        sums.magnitude[name][j] += std::abs(gradient[j]);
      }
    }
  }

 private:
  const ParameterStore& params_;
  std::vector<HostTensor> gradients_;
  std::vector<bool> written_;
};

SampleSums SumOverSamples(const TinyRun& run) {
  World world;
  world.data_parallel = std::make_unique<SelfCommunicator>();
  MemoryLedger ledger;
  const std::unique_ptr<Trainer> trainer = testing::NewTrainer(run.options, world, ledger);
  ModelInstance& instance = trainer->instance();
  const DataLoader data = run.OpenData();
  const int64_t tokens = run.options.model.sequence_length;
  const HostTensor batch_tokens(Shape{1, tokens}, DType::kI32);
  const HostTensor batch_targets(Shape{1, tokens}, DType::kI32);
  const HostTensor losses(Shape{tokens}, DType::kF32);
  SampleSink sink(instance.params());
  SampleSums sums;
  for (int64_t sample = 0; sample < kSamples; ++sample) {
    CHECK_OK(data.Fill(sample, batch_tokens, batch_targets));
    sink.BeginSample();
    instance.model().LossAndGradient(instance.context(), instance.params(),
                                     {batch_tokens, batch_targets},
                                     1.0F / static_cast<float>(tokens), losses, sink);
    sink.AddTo(sums);
    for (const double loss : testing::ToDoubles(losses)) {
      sums.loss += loss;
    }
  }
  return sums;
}

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

class RanksTest : public ::testing::TestWithParam<std::tuple<int, Accumulation>> {};

INSTANTIATE_TEST_SUITE_P(Cuts, RanksTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4, 6, 12),
                                            ::testing::Values(Accumulation::kMomentum,
                                                              Accumulation::kGradient)),
                         [](const auto& test) {
                           return std::to_string(std::get<0>(test.param)) + "RanksInThe" +
                                  (std::get<1>(test.param) == Accumulation::kMomentum ? "Momentum"
                                                                                      : "Gradient");
                         });

TEST_P(RanksTest, FirstStepIsThatOfTheWholeBatch) {
  TinyRun run(/*steps=*/4);
  run.options.optim.accumulate = std::get<1>(GetParam());
  const SampleSums sums = SumOverSamples(run);

  const FirstStep first = TakeFirstStep(run, std::get<0>(GetParam()));

  const double targets = static_cast<double>(kSamples * run.options.model.sequence_length);
  // Losses are summed in double, in another order at most.
  EXPECT_NEAR(first.result.loss_nats, sums.loss / targets, 1e-12 * sums.loss / targets);
  const double beta = 0.965;
  for (const auto& [name, gradient] : sums.gradient) {
    const std::vector<float>& momentum = first.tensors.at(name + "|momentum");
    for (size_t i = 0; i < gradient.size(); ++i) {
      // Every sample's gradient has the same bits wherever it is computed; 12 of them are summed in
      // fp32 in some order, with a product by the weight and one by 1 - beta (itself rounded).
      const double scale = (1 - beta) / kSamples;
      const double bound =
          (kSamples + 4) * UnitRoundoff(DType::kF32) * scale * sums.magnitude.at(name)[i];
      ASSERT_NEAR(momentum[i], scale * gradient[i], bound) << name << " " << i;
    }
  }
}

TEST_P(RanksTest, WeightsAfterOneStepDifferOnlyWhereTheMomentumIsNearZero) {
  TinyRun run(/*steps=*/4);
  run.options.optim.accumulate = std::get<1>(GetParam());
  const SampleSums sums = SumOverSamples(run);
  const FirstStep one = TakeFirstStep(run, 1);

  const FirstStep many = TakeFirstStep(run, std::get<0>(GetParam()));

  int64_t compared = 0;
  for (const auto& [name, gradient] : sums.gradient) {
    for (size_t i = 0; i < gradient.size(); ++i) {
      const double noise = (kSamples + 4) * UnitRoundoff(DType::kF32) * sums.magnitude.at(name)[i];
      if (std::abs(gradient[i]) > noise) {
        ASSERT_EQ(many.tensors.at(name)[i], one.tensors.at(name)[i]) << name << " " << i;
        ++compared;
      }
    }
  }
  // The exception stays one: most weights were compared.
  EXPECT_GT(compared, 3000);
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
