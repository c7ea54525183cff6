#include "optim/tiger.h"

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
using testing::reference::Hyper;
using testing::reference::OptimizedTensor;

constexpr double kUnit = 0x1p-24;

double Wide(float x) { return static_cast<double>(x); }

// A worker with one rank, weights 0.5 * noise (gains: around 1).
struct Single {
  explicit Single(const OptimOptions& options) : worker(Device{}, ledger, comm, options) {
    worker.SetWeights([&](ParamId id, int64_t i) {
      const float centre = worker.store.spec(id).kind == ParamKind::kGain ? 1.0F : 0.0F;
      return centre + 0.5F * Noise(1, id, i);
    });
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
  void Step(double learning_rate, int64_t step = 0) {
    StepInput input;
    input.learning_rate = learning_rate;
    input.step = step;
    worker.optimizer->Step(worker.ctx, input);
  }

  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker;
};

// A double-precision copy of a parameter.
OptimizedTensor Reference(const ParameterStore& store, ParamId id, const std::vector<float>& theta,
                          const std::vector<float>& momentum) {
  const ParamSpec& spec = store.spec(id);
  OptimizedTensor tensor;
  tensor.kind = spec.kind;
  tensor.width = static_cast<size_t>(spec.shape[spec.shape.rank() - 1]);
  tensor.theta.assign(theta.begin(), theta.end());
  tensor.moment1.assign(momentum.begin(), momentum.end());
  return tensor;
}

struct Storages {
  WeightStorage weights;
  MomentumStorage momentum;
};

class TigerReferenceTest : public ::testing::TestWithParam<Storages> {
 protected:
  // What storing a weight can lose, relative to it.
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

// Each step is compared with the reference from the same start. Momentum: two coefficients, two
// products and a sum are rounded, then the storage rounds. Weights: the rate has an error of up to
// 40 units (half of the 68 of its sum of squares, and the roundings of root, rate and direction);
// where the momentum is smaller than its own error, its sign is not defined.
TEST_P(TigerReferenceTest, Row01EveryClassFollowsTheReference) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weights = GetParam().weights;
  options.momentum = GetParam().momentum;
  options.weight_decay = 0.1;
  Single single(options);
  const ParameterStore& store = single.worker.store;
  constexpr double kRate = 0.01;
  int64_t moved = 0;
  for (int step = 0; step < 5; ++step) {
    const Elements theta_before = single.Weights();
    const Elements momentum_before = single.Momentum();
    const auto seed = static_cast<uint64_t>(100 + step);
    single.worker.Fold(MicroStepPlace::kFirst, 1, 1,
                       [&](ParamId id, int64_t i, int64_t) { return Noise(seed, id, i); });
    single.Step(kRate, step);
    const Elements theta = single.Weights();
    const Elements momentum = single.Momentum();
    for (int p = 0; p < store.num_params(); ++p) {
      const auto at = static_cast<size_t>(p);
      OptimizedTensor expected =
          Reference(store, ParamId{p}, theta_before[at], momentum_before[at]);
      const OptimizedTensor before = expected;
      std::vector<double> g(theta[at].size());
      for (size_t i = 0; i < g.size(); ++i) {
        g[i] = Wide(Noise(seed, ParamId{p}, static_cast<int64_t>(i)));
      }
      TigerStep(expected, g, kRate, {0.965, 0, 0.1, 0});
      const std::vector<double> rates = TigerRates(before, kRate);
      for (size_t i = 0; i < g.size(); ++i) {
        const double scale = 0.965 * std::fabs(before.moment1[i]) + 0.035 * std::fabs(g[i]);
        const double momentum_bound = (4 * kUnit + MomentumLoss()) * scale;
        ASSERT_NEAR(Wide(momentum[at][i]), expected.moment1[i], momentum_bound)
            << store.spec(ParamId{p}).name << " " << i;
        const double rate = rates[i];
        const double size = std::fabs(before.theta[i]);
        double bound = 40 * kUnit * rate * (1 + 0.1 * size) + WeightLoss() * (size + rate);
        if (std::fabs(expected.moment1[i]) <= momentum_bound) {
          bound += 2 * rate;
        }
        ASSERT_NEAR(Wide(theta[at][i]), expected.theta[i], bound)
            << store.spec(ParamId{p}).name << " " << i << " step " << step;
        moved += theta[at][i] != theta_before[at][i] ? 1 : 0;
      }
    }
  }
  EXPECT_GT(moved, store.total_elements());
}

INSTANTIATE_TEST_SUITE_P(
    Storages, TigerReferenceTest,
    ::testing::Values(Storages{WeightStorage::kFp32, MomentumStorage::kFp32},
                      Storages{WeightStorage::kFp32, MomentumStorage::kBf16},
                      Storages{WeightStorage::kBf16Plus8, MomentumStorage::kFp32},
                      Storages{WeightStorage::kBf16Plus8, MomentumStorage::kBf16},
                      Storages{WeightStorage::kBf16, MomentumStorage::kFp32},
                      Storages{WeightStorage::kBf16, MomentumStorage::kBf16},
                      Storages{WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32},
                      Storages{WeightStorage::kBf16PlusFp32, MomentumStorage::kBf16}));

// k micro-steps of R ranks each, folded one by one, against the average in double precision. Each
// fold adds up to R + 3 roundings of terms no larger than the sum of their magnitudes.
TEST(TigerTest, Row02FoldedMicroStepsEqualTheAveragedGradient) {
  constexpr int kMicroSteps = 5;
  constexpr int kRanks = 3;
  Single single(testing::OptionsFor(Algorithm::kTiger));
  const ParameterStore& store = single.worker.store;
  const auto gradient = [](int window, int micro, int64_t rank, ParamId id, int64_t i) {
    return Noise(static_cast<uint64_t>(100 * window + 10 * micro + rank), id, i);
  };
  for (int window = 0; window < 2; ++window) {
    const Elements before = single.Momentum();
    for (int micro = 0; micro < kMicroSteps; ++micro) {
      single.worker.Fold(micro == 0 ? MicroStepPlace::kFirst : MicroStepPlace::kLater,
                         1.0 / (kMicroSteps * kRanks), kRanks,
                         [&](ParamId id, int64_t i, int64_t rank) {
                           return gradient(window, micro, rank, id, i);
                         });
    }
    const Elements momentum = single.Momentum();
    for (int p = 0; p < store.num_params(); ++p) {
      for (size_t i = 0; i < momentum[static_cast<size_t>(p)].size(); ++i) {
        const double old = Wide(before[static_cast<size_t>(p)][i]);
        double mean = 0;
        double magnitude = 0;
        for (int n = 0; n < kMicroSteps * kRanks; ++n) {
          const double g =
              Wide(gradient(window, n / kRanks, n % kRanks, ParamId{p}, static_cast<int64_t>(i)));
          mean += g / (kMicroSteps * kRanks);
          magnitude += std::fabs(g) / (kMicroSteps * kRanks);
        }
        const double expected = 0.965 * old + 0.035 * mean;
        const double bound =
            kMicroSteps * (kRanks + 3) * kUnit * (0.965 * std::fabs(old) + 0.035 * magnitude);
        ASSERT_NEAR(Wide(momentum[static_cast<size_t>(p)][i]), expected, bound);
      }
    }
  }
}

TEST(TigerTest, FoldReportsTheSquaresOfEachBlockOverAllMicroSteps) {
  Single single(testing::OptionsFor(Algorithm::kTiger));
  const GroupLayout& layout = single.worker.store.layout(testing::kBlock0);
  const int64_t blocks = layout.shard_elements / layout.block_elements;
  std::vector<double> squares(static_cast<size_t>(blocks), 1e9);
  FoldInput fold;
  fold.weight = 0.125;
  fold.squares = Tensor(squares.data(), {blocks}, DType::kF64, Device{});
  const Tensor contributions = single.worker.Contributions(
      testing::kBlock0, 1, [](ParamId, int64_t, int64_t) { return 0.5F; });
  for (const MicroStepPlace place : {MicroStepPlace::kFirst, MicroStepPlace::kLater}) {
    fold.place = place;
    Context& ctx = single.worker.ctx;
    single.worker.optimizer->FoldGradient(ctx, ctx.compute(), testing::kBlock0, contributions,
                                          fold);
  }
  // q0 fills one block, k0 160 elements of the second, up0 2592 elements of the last three.
  const std::vector<double> expected = {512, 80, 512, 512, 272};
  EXPECT_EQ(squares, expected);
}

// With zero gradients only decay acts, and only where it should.
TEST(TigerTest, ZeroMomentumDecaysMatricesAndTablesOnly) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weight_decay = 0.5;
  Single single(options);
  const Elements before = single.Weights();
  single.worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId, int64_t, int64_t) { return 0.0F; });
  single.Step(0.1);
  const Elements after = single.Weights();
  for (int p = 0; p < single.worker.store.num_params(); ++p) {
    const auto at = static_cast<size_t>(p);
    const ParamKind kind = single.worker.store.spec(ParamId{p}).kind;
    const bool decays = kind == ParamKind::kMatrix || kind == ParamKind::kEmbedding;
    for (size_t i = 0; i < after[at].size(); ++i) {
      if (!decays || before[at][i] == 0) {
        ASSERT_EQ(after[at][i], before[at][i]);
      } else {
        ASSERT_LT(std::fabs(after[at][i]), std::fabs(before[at][i]));
        ASSERT_GT(std::fabs(after[at][i]), 0.9F * std::fabs(before[at][i]));
      }
    }
  }
}

// Rows of very different size: in a table each moves by its own RMS, in a matrix all move by the
// RMS of the whole.
TEST(TigerTest, TablesScaleByRowAndMatricesAsAWhole) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weight_decay = 0;
  Single single(options);
  const ParamId table = single.worker.store.Find("embed").value();
  const ParamId matrix = single.worker.store.Find("q0").value();
  const auto value = [&](ParamId id, int64_t i) {
    const int64_t width = id == table ? 37 : 32;
    return std::ldexp(1.0F, static_cast<int>(-(i / width)));
  };
  single.worker.SetWeights(value);
  single.worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId, int64_t, int64_t) { return 1.0F; });
  single.Step(0.25);
  const Elements after = single.Weights();
  for (int64_t i = 0; i < 13 * 37; ++i) {
    ASSERT_EQ(after[0][static_cast<size_t>(i)], 0.75F * value(table, i));
  }
  // The mean of 4^-r over 32 rows is (4/3) / 32.
  const float rate = 0.25F * std::sqrt(4.0F / 3 / 32);
  for (int64_t i = 0; i < 32 * 32; ++i) {
    ASSERT_NEAR(after[static_cast<size_t>(matrix.index)][static_cast<size_t>(i)],
                value(matrix, i) - rate, 1e-6);
  }
}

// As TablesScaleByRowAndMatricesAsAWhole: the mean of 4^-r over 13 rows is (4/3)(1 - 4^-13) / 13.
TEST(TigerTest, TablesScaleAsAWholeWhereAskedTo) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.weight_decay = 0;
  options.table_rms = TableRms::kTable;
  Single single(options);
  const ParamId table = single.worker.store.Find("embed").value();
  const auto value = [&](ParamId, int64_t i) {
    return std::ldexp(1.0F, static_cast<int>(-(i / 37)));
  };
  single.worker.SetWeights(value);
  single.worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId, int64_t, int64_t) { return 1.0F; });
  single.Step(0.25);
  const Elements after = single.Weights();
  const float rate = 0.25F * std::sqrt(4.0F / 3 / 13 * (1 - std::ldexp(1.0F, -26)));
  for (int64_t i = 0; i < 13 * 37; ++i) {
    ASSERT_NEAR(after[0][static_cast<size_t>(i)], value(table, i) - rate, 1e-6);
  }
}

TEST(TigerTest, AMatrixOfZerosNeverMoves) {
  Single single(testing::OptionsFor(Algorithm::kTiger));
  single.worker.SetWeights([](ParamId, int64_t) { return 0.0F; });
  single.worker.Fold(MicroStepPlace::kFirst, 1, 1, [](ParamId, int64_t, int64_t) { return 1.0F; });
  single.Step(0.25);
  const Elements after = single.Weights();
  const auto matrix = static_cast<size_t>(single.worker.store.Find("q0")->index);
  const auto bias = static_cast<size_t>(single.worker.store.Find("bias")->index);
  EXPECT_EQ(after[matrix], std::vector<float>(after[matrix].size(), 0.0F));
  EXPECT_EQ(after[bias], std::vector<float>(after[bias].size(), -0.125F));
}

TEST(TigerTest, GradientModeFoldsTheScaledGradientBeforeTheStep) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  Single folded(options);
  options.accumulate = Accumulation::kGradient;
  Single whole(options);
  const auto gradient = [](ParamId id, int64_t i) { return Noise(9, id, i); };
  folded.worker.Fold(MicroStepPlace::kFirst, 0.25, 1,
                     [&](ParamId id, int64_t i, int64_t) { return gradient(id, i); });
  folded.Step(0.01);
  StepInput input;
  input.learning_rate = 0.01;
  whole.worker.StepWithGradients(input, gradient, 0.25F);
  EXPECT_EQ(folded.Momentum(), whole.Momentum());
  EXPECT_EQ(folded.Weights(), whole.Weights());
}

TEST(TigerDeathTest, RefusesGradientsThatWereFolded) {
  Single single(testing::OptionsFor(Algorithm::kTiger));
  EXPECT_DEATH(single.worker.StepWithGradients({}, [](ParamId, int64_t) { return 0.0F; }),
               "folded into the momentum");
}

}  // namespace
}  // namespace panthera
