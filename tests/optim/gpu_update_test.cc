// Updates on a GPU against those on a CPU: every algorithm, storage and policy gives the same bits.
#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "runtime/base/check.h"
#include "tests/optim/small_training.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using testing::NoPoison;
using testing::Outcome;
using testing::Poison;
using testing::SmallTraining;

constexpr int kSteps = 4;

void ExpectSameBits(const Outcome& actual, const Outcome& expected) {
  EXPECT_TRUE(actual.weights == expected.weights);
  EXPECT_TRUE(actual.state1 == expected.state1);
  EXPECT_TRUE(actual.state2 == expected.state2);
  // A norm that is not finite compares equal to none.
  ASSERT_EQ(actual.norms.size(), expected.norms.size());
  for (size_t i = 0; i < actual.norms.size(); ++i) {
    EXPECT_TRUE(actual.norms[i] == expected.norms[i] ||
                (!std::isfinite(actual.norms[i]) && !std::isfinite(expected.norms[i])))
        << actual.norms[i] << " and " << expected.norms[i];
  }
  EXPECT_EQ(actual.losses, expected.losses);
  EXPECT_EQ(actual.tensors, expected.tensors);
  EXPECT_EQ(actual.masked, expected.masked);
  EXPECT_EQ(actual.skipped, expected.skipped);
  EXPECT_EQ(actual.found, expected.found);
}

// Tensors of every kind, on several ranks, in the first, a middle and the last micro-step.
float SomeTensors(int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
  const bool bad = (step == 1 && id.index == 3 && micro == 0 && part == 3 && i == 2000) ||
                   (step == 1 && id.index == 0 && micro == 1 && part == 0 && i == 13 * 37 - 1) ||
                   (step == 2 && id.index == 5 && micro == 2 && part == 1 && i == 3) ||
                   (step == 2 && id.index == 6 && part == 2 && i == 1099);
  return bad ? std::numeric_limits<float>::infinity() : 0.0F;
}

using Case =
    std::tuple<Algorithm, TableOptimizer, Accumulation, WeightStorage, MomentumStorage, int>;

class GpuUpdateTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::vector<Device> devices = testing::ComputeDevices();
    if (devices.size() < 2) {
      GTEST_SKIP() << "no GPU, real or emulated";
    }
    gpu_ = devices.back();
  }
  static OptimOptions StepOptions() {
    const auto [algorithm, table, accumulate, weights, momentum, ranks] = GetParam();
    OptimOptions options = testing::TrainingOptions(algorithm, accumulate, weights, momentum);
    options.table.optimizer = table;
    CHECK_OK(options.Finish());
    return options;
  }
  void ExpectTheBitsOfTheCpu(const OptimOptions& options, const Poison& poison) const {
    const int ranks = std::get<5>(GetParam());
    ExpectSameBits(SmallTraining(options, ranks, poison, gpu_).Run(kSteps),
                   SmallTraining(options, 1, poison).Run(kSteps));
  }

  Device gpu_;
};

TEST_P(GpuUpdateTest, HasTheBitsOfTheCpu) { ExpectTheBitsOfTheCpu(StepOptions(), NoPoison); }

TEST_P(GpuUpdateTest, LeavesOutWhatIsNotFiniteAsTheCpuDoes) {
  ExpectTheBitsOfTheCpu(StepOptions(), SomeTensors);
}

// Rows that no rank saw in any micro-step, with tensors that are left out among them: on any number
// of ranks those of one, although each rank marks its own tokens only.
TEST_P(GpuUpdateTest, LeavesUnseenRowsAsTheCpuDoes) {
  for (const LazyRows lazy_rows : {LazyRows::kChange, LazyRows::kChangeAndState}) {
    OptimOptions options = StepOptions();
    options.lazy_rows = lazy_rows;
    if (options.Finish().ok()) {
      ExpectTheBitsOfTheCpu(options, SomeTensors);
    } else {
      EXPECT_TRUE(options.ForTable().algorithm == Algorithm::kAdamW ||
                  options.accumulate == Accumulation::kMomentum);
    }
  }
}

// A table whose rate is that of all its rows, with tensors that are left out among the others.
TEST_P(GpuUpdateTest, ScalesATableAsAWholeAsTheCpuDoes) {
  OptimOptions options = StepOptions();
  options.table_rms = TableRms::kTable;
  if (options.algorithm == Algorithm::kTiger) {
    ExpectTheBitsOfTheCpu(options, SomeTensors);
  } else {
    EXPECT_FALSE(options.Finish().ok());
  }
}

// Clipping needs the whole gradient.
using GpuClipTest = GpuUpdateTest;

TEST_P(GpuClipTest, ScalesAsTheCpuDoes) {
  OptimOptions options = StepOptions();
  options.clip_norm = 0.5;
  ExpectTheBitsOfTheCpu(options, NoPoison);
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto [algorithm, table, accumulate, weights, momentum, ranks] = info.param;
  std::string name =
      absl::StrCat(EnumName(algorithm), "_table_", EnumName(table), "_", EnumName(accumulate), "_",
                   EnumName(weights), "_", EnumName(momentum), "_", ranks);
  for (char& c : name) {
    c = c == '+' ? 'p' : c;
  }
  return name;
}

constexpr auto kStorages = [] {
  return ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16,
                           WeightStorage::kBf16PlusFp32);
};
constexpr auto kTables = [] {
  return ::testing::Values(TableOptimizer::kSame, TableOptimizer::kAdamW);
};
constexpr auto kMomenta = [] {
  return ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16);
};

INSTANTIATE_TEST_SUITE_P(Folding, GpuUpdateTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger), kTables(),
                                            ::testing::Values(Accumulation::kMomentum), kStorages(),
                                            kMomenta(), ::testing::Values(1, 4)),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Summing, GpuUpdateTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion,
                                                              Algorithm::kAdamW),
                                            ::testing::Values(TableOptimizer::kSame),
                                            ::testing::Values(Accumulation::kGradient), kStorages(),
                                            kMomenta(), ::testing::Values(2)),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(
    SummingWithATableOfItsOwn, GpuUpdateTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion),
                       ::testing::Values(TableOptimizer::kAdamW),
                       ::testing::Values(Accumulation::kGradient),
                       ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8),
                       ::testing::Values(MomentumStorage::kBf16), ::testing::Values(2)),
    CaseName);
INSTANTIATE_TEST_SUITE_P(ClippingATableOfItsOwn, GpuClipTest,
                         ::testing::Values(Case(Algorithm::kTiger, TableOptimizer::kAdamW,
                                                Accumulation::kGradient, WeightStorage::kFp32,
                                                MomentumStorage::kFp32, 2)),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(
    Clipping, GpuClipTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                       ::testing::Values(TableOptimizer::kSame),
                       ::testing::Values(Accumulation::kGradient),
                       ::testing::Values(WeightStorage::kBf16Plus8),
                       ::testing::Values(MomentumStorage::kBf16), ::testing::Values(1, 2)),
    CaseName);

}  // namespace
}  // namespace panthera
