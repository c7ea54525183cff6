// OptimOptions::lazy_rows in the update rules: what rows do whose token did not occur.
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/optim/small_model.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::Noise;
using testing::Worker;

constexpr int64_t kRows = 13;
constexpr int64_t kWidth = 37;

bool IsSeen(int64_t row) { return row % 3 == 1; }

// A worker on the CPU that takes steps, all of whose gradients are noise.
struct Training {
  explicit Training(const OptimOptions& options)
      : folds(options.accumulate == Accumulation::kMomentum),
        worker(Device{}, ledger, comm, options) {
    worker.SetWeights([](ParamId id, int64_t i) { return 0.5F + 0.25F * Noise(1, id, i); });
  }

  // With the gradients of step 0 first, so that every row has momentum.
  void Step(int step, const Tensor& rows, const Tensor& shrinks = {}) {
    const auto gradient = [step](ParamId id, int64_t i) {
      return step == 0 ? Noise(9, id, i) : 0.5F * Noise(10, id, i);
    };
    StepInput input;
    input.step = step;
    input.learning_rate = 0.01;
    input.rows = rows;
    input.shrinks = shrinks;
    if (folds) {
      worker.Fold(MicroStepPlace::kFirst, 1, 1,
                  [&](ParamId id, int64_t i, int64_t) { return gradient(id, i); });
      worker.optimizer->Step(worker.ctx, input);
    } else {
      worker.StepWithGradients(input, gradient);
    }
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

  bool folds;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker;
};

struct Rule {
  const char* name;
  Algorithm algorithm;
  Accumulation accumulate;
};

class LazyRowsTest : public ::testing::TestWithParam<std::tuple<Rule, WeightStorage>> {
 protected:
  LazyRowsTest() {
    for (int64_t row = 0; row < kRows; ++row) {
      flags_.push_back(IsSeen(row) ? 1 : 0);
    }
    options_.algorithm = std::get<0>(GetParam()).algorithm;
    options_.accumulate = std::get<0>(GetParam()).accumulate;
    options_.weights = std::get<1>(GetParam());
    options_.weight_decay = 0.5;
    CHECK_OK(options_.Finish());
  }

  OptimOptions With(LazyRows lazy_rows) const {
    OptimOptions options = options_;
    options.lazy_rows = lazy_rows;
    CHECK_OK(options.Finish());
    return options;
  }
  Tensor Rows() { return Tensor(flags_.data(), {kRows}, DType::kU8, Device{}); }

  // The table's elements [kRows * kWidth] are those of `seen` in the rows that are seen and of
  // `unseen` in the others; all other parameters are those of `seen`.
  static void ExpectRowsOf(const Elements& actual, const Elements& seen, const Elements& unseen) {
    for (size_t p = 1; p < actual.size(); ++p) {
      EXPECT_TRUE(actual[p] == seen[p]) << "parameter " << p;
    }
    for (int64_t i = 0; i < kRows * kWidth; ++i) {
      const auto at = static_cast<size_t>(i);
      ASSERT_EQ(actual[0][at], IsSeen(i / kWidth) ? seen[0][at] : unseen[0][at])
          << "row " << i / kWidth;
    }
  }

  OptimOptions options_;
  std::vector<uint8_t> flags_;
};

INSTANTIATE_TEST_SUITE_P(
    Rules, LazyRowsTest,
    ::testing::Combine(
        ::testing::Values(Rule{"TigerFolding", Algorithm::kTiger, Accumulation::kMomentum},
                          Rule{"TigerSumming", Algorithm::kTiger, Accumulation::kGradient},
                          Rule{"Lion", Algorithm::kLion, Accumulation::kGradient}),
        ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) +
             (std::get<1>(test.param) == WeightStorage::kFp32 ? "Fp32" : "Bf16");
    });

TEST_P(LazyRowsTest, UnseenRowsKeepTheirBitsAndTheRestFollowsThePlainRule) {
  Training plain(With(LazyRows::kOff));
  Training lazy(With(LazyRows::kChange));
  plain.Step(0, {});
  lazy.Step(0, {});
  const Elements before = lazy.Weights();
  ASSERT_TRUE(before == plain.Weights());

  plain.Step(1, {});
  lazy.Step(1, Rows());

  ExpectRowsOf(lazy.Weights(), plain.Weights(), before);
  // It is the mask that holds the rows, not a rule that moves none.
  EXPECT_FALSE(plain.Weights()[0] == before[0]);
}

TEST_P(LazyRowsTest, TheMomentumOfUnseenRowsGoesOn) {
  Training plain(With(LazyRows::kOff));
  Training lazy(With(LazyRows::kChange));
  for (int step = 0; step < 2; ++step) {
    plain.Step(step, {});
    lazy.Step(step, Rows());
  }
  EXPECT_TRUE(lazy.Momentum() == plain.Momentum());
}

TEST_P(LazyRowsTest, WithTheStateUnseenRowsKeepTheBitsOfTheirMomentumToo) {
  if (options_.accumulate == Accumulation::kMomentum) {
    OptimOptions options = options_;
    options.lazy_rows = LazyRows::kChangeAndState;
    EXPECT_FALSE(options.Finish().ok()) << "such options are refused";
    return;
  }
  Training plain(With(LazyRows::kOff));
  Training lazy(With(LazyRows::kChangeAndState));
  plain.Step(0, {});
  lazy.Step(0, {});
  const Elements weights = lazy.Weights();
  const Elements momentum = lazy.Momentum();

  plain.Step(1, {});
  lazy.Step(1, Rows());

  ExpectRowsOf(lazy.Weights(), plain.Weights(), weights);
  ExpectRowsOf(lazy.Momentum(), plain.Momentum(), momentum);
}

TEST(LazyRowsTigerTest, UnseenRowsShrinkWithTheirTable) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.lazy_rows = LazyRows::kChange;
  options.shrink_ratio = 0.5;
  Training training(options);
  const Elements before = training.Weights();
  std::vector<uint8_t> flags(kRows);
  flags[4] = 1;
  std::vector<int32_t> shrinks(static_cast<size_t>(training.worker.store.num_params()));
  shrinks[0] = 2;
  training.Step(0, Tensor(flags.data(), {kRows}, DType::kU8, Device{}),
                Tensor(shrinks.data(), {static_cast<int64_t>(shrinks.size())}, DType::kI32, {}));
  const Elements after = training.Weights();
  for (int64_t i = 0; i < kRows * kWidth; ++i) {
    const auto at = static_cast<size_t>(i);
    if (i / kWidth == 4) {
      ASSERT_NE(after[0][at], 0.25F * before[0][at]);
    } else {
      ASSERT_EQ(after[0][at], 0.25F * before[0][at]);
    }
  }
}

TEST(LazyRowsDeathTest, RowsNeedTheOptionAndTheSizeOfTheTable) {
  std::vector<uint8_t> flags(kRows + 1);
  const Tensor rows(flags.data(), {kRows}, DType::kU8, Device{});
  Training off(testing::OptionsFor(Algorithm::kTiger));
  EXPECT_DEATH(off.Step(0, rows), "lazy_rows");
  Training adamw(testing::OptionsFor(Algorithm::kAdamW));
  EXPECT_DEATH(adamw.Step(0, rows), "lazy_rows");
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.lazy_rows = LazyRows::kChange;
  Training lazy(options);
  EXPECT_DEATH(lazy.Step(0, Tensor(flags.data(), {kRows + 1}, DType::kU8, Device{})), "13");
}

}  // namespace
}  // namespace panthera
