#include "runtime/math/count_above.h"

#include <omp.h>

#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::FromDoubles;
using testing::HostTensor;
using testing::RandomTensor;
using testing::ToDoubles;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// On every device that there is. Tensors are memory that the device and the host can reach.
class CountAboveTest : public ::testing::TestWithParam<Device> {
 protected:
  int64_t CountIn(float bound, const Tensor& x) {
    const HostTensor count({1}, DType::kI64);
    CountAbove(ctx_, bound, x, count);
    testing::WaitForDevice(GetParam());
    return count.tensor().data<int64_t>()[0];
  }
  int64_t CountIn(float bound, const std::vector<double>& values, DType dtype) {
    return CountIn(bound, FromDoubles(values, {static_cast<int64_t>(values.size())}, dtype));
  }

 private:
  testing::TensorsOn memory_{GetParam()};

 protected:
  MemoryLedger ledger_;
  Context ctx_{GetParam(), ledger_, 0};
};
INSTANTIATE_TEST_SUITE_P(Devices, CountAboveTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST_P(CountAboveTest, CountsLargerMagnitudesOfBothSignsAndNotTheBound) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(CountIn(2, {1, -3, 2, -2, 4}, dtype), 2);
    EXPECT_EQ(CountIn(0, {0, -0.0, 1}, dtype), 1);
    EXPECT_EQ(CountIn(5, {kInfinity, -kInfinity, kNan}, dtype), 2);
    EXPECT_EQ(CountIn(5, std::vector<double>{}, dtype), 0);
  }
}

// Long enough for several threads, several chunks or blocks and an odd rest, in packs and not.
TEST_P(CountAboveTest, CountsEverywhereWithAnyNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const int64_t count : {int64_t{100'000}, int64_t{100'003}}) {
    const HostTensor x = RandomTensor({count}, DType::kF32, 1);
    int64_t expected = 0;
    for (const double value : ToDoubles(x)) {
      expected += value > 0.5 || value < -0.5 ? 1 : 0;
    }
    ASSERT_GT(expected, 1000);
    for (const int number : {1, 2, 5}) {
      omp_set_num_threads(number);
      EXPECT_EQ(CountIn(0.5F, x), expected);
    }
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace panthera
