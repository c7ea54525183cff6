#include "runtime/math/vector_ops.h"

#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/math/context.h"
#include "tests/support/devices.h"
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

// On every device that there is. Tensors are memory that the device and the host can reach.
class VectorOpsTest : public ::testing::TestWithParam<Device> {
 protected:
  double MaxAbsOf(const Tensor& x) {
    const HostTensor largest({1}, DType::kF32);
    MaxAbs(ctx_, x, largest);
    return ToDoubles(largest).front();
  }
  double MaxAbsOf(const std::vector<double>& values, DType dtype) {
    return MaxAbsOf(FromDoubles(values, {static_cast<int64_t>(values.size())}, dtype));
  }

  // A tensor of doubles, and its values once they are there.
  static HostTensor Sums(const std::vector<double>& values) {
    HostTensor sums({static_cast<int64_t>(values.size())}, DType::kF64);
    std::memcpy(sums.tensor().bytes_data(), values.data(), values.size() * sizeof(double));
    return sums;
  }
  static std::vector<double> ValuesOf(const HostTensor& sums) {
    testing::WaitForDevice(sums.tensor().device());
    const double* values = sums.tensor().data<double>();
    return {values, values + sums.tensor().elements()};
  }

 private:
  testing::TensorsOn memory_{GetParam()};

 protected:
  MemoryLedger ledger_;
  Context ctx_{GetParam(), ledger_, 0};
};
INSTANTIATE_TEST_SUITE_P(Devices, VectorOpsTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST_P(VectorOpsTest, MaxAbsIsTheLargestMagnitude) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(MaxAbsOf({1, -3, 2}, dtype), 3);
    EXPECT_EQ(MaxAbsOf({1, -3, 4}, dtype), 4);
    EXPECT_EQ(MaxAbsOf({-0.0}, dtype), 0);
    EXPECT_EQ(MaxAbsOf({1, -kInfinity}, dtype), kInfinity);
    EXPECT_EQ(MaxAbsOf(std::vector<double>{}, dtype), 0);
  }
}

TEST_P(VectorOpsTest, MaxAbsOfAnythingWithANanIsNan) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (size_t at = 0; at < 3; ++at) {
      std::vector<double> values = {kInfinity, 1, -kInfinity};
      values[at] = kNan;
      EXPECT_TRUE(std::isnan(MaxAbsOf(values, dtype))) << at;
    }
  }
}

// Long enough for several threads, several chunks or blocks and an odd rest, in packs and not.
TEST_P(VectorOpsTest, MaxAbsFindsTheLargestWhereverItIsWithAnyNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const int64_t count : {int64_t{100'000}, int64_t{100'003}}) {
    for (const int64_t at :
         {int64_t{0}, int64_t{4095}, int64_t{4096}, int64_t{50'001}, count - 1}) {
      const HostTensor x = RandomTensor({count}, DType::kF32, 1);
      x.tensor().data<float>()[at] = -1e9F;
      for (const int number : {1, 2, 5}) {
        omp_set_num_threads(number);
        EXPECT_EQ(MaxAbsOf(x), 1e9) << at;
      }
    }
  }
  omp_set_num_threads(threads);
}

TEST_P(VectorOpsTest, SetZeroZeroesEveryByte) {
  const HostTensor x({3, 5}, DType::kBF16);
  SetZero(ctx_, x);
  EXPECT_EQ(ToDoubles(x), std::vector<double>(15, 0.0));
}

TEST_P(VectorOpsTest, AddSumAddsInDoublePrecisionToWhatIsThere) {
  const HostTensor sum = Sums({10});
  // In fp32, 2^24 + 1 would be 2^24.
  AddSum(ctx_, FromDoubles(std::vector<double>{0x1p24, 1, 1}, {3}, DType::kF32), sum);
  EXPECT_THAT(ValuesOf(sum), ElementsAre(0x1p24 + 12));
  AddSum(ctx_, testing::FromTokens(std::vector<int32_t>{1, 0, 1}), sum);
  EXPECT_THAT(ValuesOf(sum), ElementsAre(0x1p24 + 14));
}

// The sum in the order of the contract.
double SumInOrder(const std::vector<double>& x, Device device) {
  if (device.is_cpu()) {
    double sum = 0;
    for (const double value : x) {
      sum += value;
    }
    return sum;
  }
  constexpr size_t kLanes = 1024;
  constexpr size_t kRun = 32;
  std::vector<double> lanes(kLanes);
  for (size_t i = 0; i < x.size(); ++i) {
    lanes[i % kLanes] += x[i];
  }
  double sum = 0;
  for (size_t run = 0; run < kLanes; run += kRun) {
    for (size_t half = kRun / 2; half > 0; half /= 2) {
      for (size_t lane = run; lane < run + half; ++lane) {
        lanes[lane] += lanes[lane + half];
      }
    }
    sum += lanes[run];
  }
  return sum;
}

TEST_P(VectorOpsTest, AddSumAddsInTheOrderOfItsDevice) {
  for (const int64_t count : {int64_t{1}, int64_t{1000}, int64_t{5003}}) {
    // Numbers so far apart in size that every addition rounds, also in double precision.
    std::vector<double> values = testing::RandomDoubles(count, 7);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::ldexp(values[i], static_cast<int>(i * 29 % 100) - 50);
    }
    const HostTensor x = FromDoubles(values, {count}, DType::kF32);
    const HostTensor sum = Sums({0});
    AddSum(ctx_, x, sum);
    EXPECT_THAT(ValuesOf(sum), ElementsAre(SumInOrder(ToDoubles(x), GetParam()))) << count;
  }
}

TEST_P(VectorOpsTest, AddColumnSumsAddsRowsInDoublePrecisionToWhatIsThere) {
  const HostTensor sums = Sums({0x1p24, 2, 3});
  AddColumnSums(ctx_, FromDoubles(std::vector<double>{1, 2, 3, 10, 20, 30}, {2, 3}, DType::kF32),
                sums);
  EXPECT_THAT(ValuesOf(sums), ElementsAre(0x1p24 + 11, 24, 36));
  HostTensor counts({2, 3}, DType::kI32);
  for (int i = 0; i < 6; ++i) {
    counts.tensor().data<int32_t>()[i] = i;
  }
  AddColumnSums(ctx_, counts, sums);
  EXPECT_THAT(ValuesOf(sums), ElementsAre(0x1p24 + 14, 29, 43));
}

TEST_P(VectorOpsTest, AddColumnSumsAddsByAscendingRowOnEveryDevice) {
  constexpr int64_t kRows = 5;
  constexpr int64_t kColumns = 300;
  std::vector<double> values = testing::RandomDoubles(kRows * kColumns, 8);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::ldexp(values[i], static_cast<int>(i * 29 % 100) - 50);
  }
  const HostTensor x = FromDoubles(values, {kRows, kColumns}, DType::kF32);
  const HostTensor sums = Sums(std::vector<double>(kColumns, 0.1));
  AddColumnSums(ctx_, x, sums);

  const std::vector<double> terms = ToDoubles(x);
  std::vector<double> expected(kColumns, 0.1);
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t column = 0; column < kColumns; ++column) {
      expected[column] += terms[row * kColumns + column];
    }
  }
  EXPECT_EQ(ValuesOf(sums), expected);
}

// Around the sizes of packs and blocks, and parts that begin where no pack does.
struct Part {
  int64_t begin;
  int64_t end;
};
constexpr Part kParts[] = {{0, 0}, {0, 1}, {0, 7}, {0, 2056}, {8, 2056}, {3, 2051}, {1, 40'002}};

// The nearest bf16 of a finite number in its range, ties to even: from the definition.
double NearestBf16(double value) {
  const int exponent = std::ilogb(value);
  const double unit = std::ldexp(1.0, exponent - 7);
  return std::nearbyint(value / unit) * unit;
}

TEST_P(VectorOpsTest, RoundToBf16GivesTheNearestAndTouchesNothingElse) {
  constexpr int64_t kCount = 40'003;
  const HostTensor in = RandomTensor({kCount}, DType::kF32, 3);
  // A tie goes to the even neighbour.
  in.tensor().data<float>()[3] = 1 + 0x1p-8F;
  in.tensor().data<float>()[4] = 1 + 0x1.8p-7F;
  const std::vector<double> values = ToDoubles(in);
  for (const Part& part : kParts) {
    const HostTensor out({kCount}, DType::kBF16);
    RoundToBf16(ctx_.compute(), in.tensor().Slice(part.begin, part.end),
                out.tensor().Slice(part.begin, part.end));
    const std::vector<double> rounded = ToDoubles(out);
    for (int64_t i = 0; i < kCount; ++i) {
      const auto at = static_cast<size_t>(i);
      if (i >= part.begin && i < part.end) {
        ASSERT_EQ(rounded[at], NearestBf16(values[at])) << i;
      } else {
        ASSERT_TRUE(std::isnan(rounded[at])) << i << " was written";
      }
    }
  }
}

TEST_P(VectorOpsTest, RoundToBf16KeepsInfinitiesAndNans) {
  const HostTensor in =
      FromDoubles(std::vector<double>{kInfinity, -kInfinity, kNan, 3e38, -0.0}, {5}, DType::kF32);
  in.tensor().data<float>()[3] = std::numeric_limits<float>::max();
  const HostTensor out({5}, DType::kBF16);
  RoundToBf16(ctx_.compute(), in, out);
  const std::vector<double> rounded = ToDoubles(out);
  EXPECT_EQ(rounded[0], kInfinity);
  EXPECT_EQ(rounded[1], -kInfinity);
  EXPECT_TRUE(std::isnan(rounded[2]));
  EXPECT_EQ(rounded[3], kInfinity);
  EXPECT_TRUE(std::signbit(rounded[4]));
}

TEST_P(VectorOpsTest, ScaleMultipliesAPartAndTouchesNothingElse) {
  constexpr int64_t kCount = 40'003;
  constexpr float kFactor = 0.3F;
  for (const Part& part : kParts) {
    const HostTensor x = RandomTensor({kCount}, DType::kF32, 4);
    const std::vector<double> before = ToDoubles(x);
    Scale(ctx_.compute(), kFactor, x.tensor().Slice(part.begin, part.end));
    const std::vector<double> after = ToDoubles(x);
    for (int64_t i = 0; i < kCount; ++i) {
      const auto at = static_cast<size_t>(i);
      const bool inside = i >= part.begin && i < part.end;
      const double factor = inside ? static_cast<double>(kFactor) : 1.0;
      // A product of two floats is exact in double precision.
      ASSERT_EQ(after[at], static_cast<double>(static_cast<float>(before[at] * factor))) << i;
    }
  }
}

TEST(VectorOpsMetaTest, ComputesNothing) {
  MemoryLedger ledger;
  const std::unique_ptr<Context> plan = Context::Plan(Device{}, ledger);
  SetZero(*plan, MetaTensor({int64_t{1} << 40}, DType::kF32));
  AddSum(*plan, MetaTensor({5}, DType::kF32), MetaTensor({1}, DType::kF64));
  AddColumnSums(*plan, MetaTensor({2, 5}, DType::kF32), MetaTensor({5}, DType::kF64));
  MaxAbs(*plan, MetaTensor({5}, DType::kBF16), MetaTensor({1}, DType::kF32));
  RoundToBf16(plan->compute(), MetaTensor({int64_t{1} << 40}, DType::kF32),
              MetaTensor({int64_t{1} << 40}, DType::kBF16));
  Scale(plan->compute(), 2, MetaTensor({int64_t{1} << 40}, DType::kF32));
}

TEST(VectorOpsDeathTest, RefuseTensorsOfAnotherTypeSizeOrDevice) {
  MemoryLedger ledger;
  Context ctx(Device{}, ledger, 0);
  const HostTensor x = testing::Zeros({4}, DType::kF32);
  EXPECT_DEATH(RoundToBf16(ctx.compute(), x, x), "fp32 vs. bf16");
  EXPECT_DEATH(RoundToBf16(ctx.compute(), x, HostTensor({3}, DType::kBF16)), "4 vs. 3");
  EXPECT_DEATH(Scale(ctx.compute(), 2, MetaTensor({4}, DType::kF32)), "meta");
}

}  // namespace
}  // namespace panthera
