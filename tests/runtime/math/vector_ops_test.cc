#include "runtime/math/vector_ops.h"

#include <omp.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/math/context.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using ::testing::ElementsAre;
using testing::FromDoubles;
using testing::HostTensor;
using testing::MetaTensor;
using testing::RandomTensor;
using testing::ToDoubles;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class VectorOpsTest : public ::testing::Test {
 protected:
  double MaxAbsOf(const Tensor& x) {
    const HostTensor largest({1}, DType::kF32);
    MaxAbs(ctx_, x, largest);
    return ToDoubles(largest).front();
  }
  double MaxAbsOf(const std::vector<double>& values, DType dtype) {
    return MaxAbsOf(FromDoubles(values, {static_cast<int64_t>(values.size())}, dtype));
  }

  MemoryLedger ledger_;
  Context ctx_{Device{}, ledger_, 0};
};

TEST_F(VectorOpsTest, MaxAbsIsTheLargestMagnitude) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(MaxAbsOf({1, -3, 2}, dtype), 3);
    EXPECT_EQ(MaxAbsOf({1, -3, 4}, dtype), 4);
    EXPECT_EQ(MaxAbsOf({-0.0}, dtype), 0);
    EXPECT_EQ(MaxAbsOf({1, -kInfinity}, dtype), kInfinity);
    EXPECT_EQ(MaxAbsOf(std::vector<double>{}, dtype), 0);
  }
}

TEST_F(VectorOpsTest, MaxAbsOfAnythingWithANanIsNan) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (size_t at = 0; at < 3; ++at) {
      std::vector<double> values = {kInfinity, 1, -kInfinity};
      values[at] = kNan;
      EXPECT_TRUE(std::isnan(MaxAbsOf(values, dtype))) << at;
    }
  }
}

// Long enough for several threads, several chunks and an odd rest.
TEST_F(VectorOpsTest, MaxAbsFindsTheLargestWhereverItIsWithAnyNumberOfThreads) {
  constexpr int64_t kCount = 100'003;
  const int threads = omp_get_max_threads();
  for (const int64_t at : {int64_t{0}, int64_t{4095}, int64_t{4096}, int64_t{50'001}, kCount - 1}) {
    const HostTensor x = RandomTensor({kCount}, DType::kF32, 1);
    x.tensor().data<float>()[at] = -1e9F;
    for (const int count : {1, 2, 5}) {
      omp_set_num_threads(count);
      EXPECT_EQ(MaxAbsOf(x), 1e9) << at;
    }
  }
  omp_set_num_threads(threads);
}

TEST_F(VectorOpsTest, SetZeroZeroesEveryByte) {
  const HostTensor x({3, 5}, DType::kBF16);
  SetZero(ctx_, x);
  EXPECT_EQ(ToDoubles(x), std::vector<double>(15, 0.0));
}

TEST_F(VectorOpsTest, AddSumAddsInDoublePrecisionToWhatIsThere) {
  double sum = 10;
  const Tensor out(&sum, {1}, DType::kF64, Device{});
  // In fp32, 2^24 + 1 would be 2^24.
  AddSum(ctx_, FromDoubles(std::vector<double>{0x1p24, 1, 1}, {3}, DType::kF32), out);
  EXPECT_EQ(sum, 0x1p24 + 12);
  AddSum(ctx_, testing::FromTokens(std::vector<int32_t>{1, 0, 1}), out);
  EXPECT_EQ(sum, 0x1p24 + 14);
}

TEST_F(VectorOpsTest, AddColumnSumsAddsRowsInDoublePrecisionToWhatIsThere) {
  double sums[3] = {0x1p24, 2, 3};
  AddColumnSums(ctx_, FromDoubles(std::vector<double>{1, 2, 3, 10, 20, 30}, {2, 3}, DType::kF32),
                {sums, {3}, DType::kF64, Device{}});
  EXPECT_THAT(sums, ElementsAre(0x1p24 + 11, 24, 36));
}

TEST_F(VectorOpsTest, MetaComputesNothing) {
  const std::unique_ptr<Context> plan = Context::Plan(Device{}, ledger_);
  SetZero(*plan, MetaTensor({int64_t{1} << 40}, DType::kF32));
  AddSum(*plan, MetaTensor({5}, DType::kF32), MetaTensor({1}, DType::kF64));
  AddColumnSums(*plan, MetaTensor({2, 5}, DType::kF32), MetaTensor({5}, DType::kF64));
  MaxAbs(*plan, MetaTensor({5}, DType::kBF16), MetaTensor({1}, DType::kF32));
}

}  // namespace
}  // namespace panthera
