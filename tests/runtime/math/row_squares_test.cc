#include "runtime/math/row_squares.h"

#include <omp.h>

#include <cmath>
#include <cstdint>
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

// On every device that there is. Tensors are memory that the device and the host can reach.
class RowSquaresTest : public ::testing::TestWithParam<Device> {
 protected:
  std::vector<double> SquaresOf(const Tensor& x) {
    const HostTensor squares({x.size(0)}, DType::kF64);
    RowSquares(ctx_, x, squares);
    testing::WaitForDevice(GetParam());
    const double* out = squares.tensor().data<double>();
    return {out, out + x.size(0)};
  }

 private:
  testing::TensorsOn memory_{GetParam()};

 protected:
  MemoryLedger ledger_;
  Context ctx_{GetParam(), ledger_, 0};
};
INSTANTIATE_TEST_SUITE_P(Devices, RowSquaresTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST_P(RowSquaresTest, EveryRowHasItsOwnSum) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const std::vector<double> values = {1, -2, 2, 0, 0, 0, 0.5, -0.25, 4};
    const HostTensor x = FromDoubles(values, {3, 3}, dtype);
    EXPECT_EQ(SquaresOf(x), (std::vector<double>{9, 0, 16.3125}));
  }
}

// Widths below, at and beyond what a warp takes at once and a chunk holds, in packs and not; more
// rows than a thread block or a thread takes. A sum of n squares has an error of n units of double.
TEST_P(RowSquaresTest, AreThoseOfAPlainLoopForEveryWidthAndNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 7, 64, 300, 1024, 2500}) {
      const int64_t rows = 40;
      const HostTensor x = RandomTensor({rows, width}, dtype, 3);
      const std::vector<double> values = ToDoubles(x);
      for (const int number : {1, 3}) {
        omp_set_num_threads(number);
        const std::vector<double> squares = SquaresOf(x);
        for (int64_t row = 0; row < rows; ++row) {
          double expected = 0;
          for (int64_t i = 0; i < width; ++i) {
            const double value = values[static_cast<size_t>(row * width + i)];
            expected += value * value;
          }
          ASSERT_NEAR(squares[static_cast<size_t>(row)], expected,
                      static_cast<double>(width) * 0x1p-53 * expected)
              << row << " of width " << width;
        }
      }
    }
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace panthera
