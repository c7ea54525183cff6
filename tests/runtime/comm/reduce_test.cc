#include "runtime/comm/reduce.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/base/philox.h"
#include "tests/support/devices.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::HostTensor;

constexpr int64_t kRows = 5;
constexpr float kScale = 0.3F;
constexpr float kBefore = 3.25F;

// Numbers between 2^-20 and 2^20 in size, so that every addition rounds.
float Number(int64_t index) {
  const Philox random = Philox4x32(17, static_cast<uint64_t>(index), 0);
  const float magnitude =
      std::bit_cast<float>((107U + random.value[0] % 40U) << 23) * (1 + UnitFloat(random.value[1]));
  return (random.value[2] & 1U) != 0 ? -magnitude : magnitude;
}

HostTensor Numbers(const Shape& shape, DType dtype) {
  HostTensor numbers(shape, dtype);
  DispatchFloat(dtype, [&]<typename T>() {
    for (int64_t i = 0; i < shape.elements(); ++i) {
      numbers.tensor().data<T>()[i] = T(Number(i));
    }
  });
  return numbers;
}

// The contract's formula, one element at a time.
float Expected(const std::vector<double>& rows, int64_t columns, int64_t column) {
  float sum = static_cast<float>(rows[static_cast<size_t>(column)]);
  for (int64_t r = 1; r < kRows; ++r) {
    sum = sum + static_cast<float>(rows[static_cast<size_t>(r * columns + column)]);
  }
  return kScale * sum;
}

struct SumRowsCase {
  Device device;
  DType dtype;
  // Several blocks, several threads' shares and an odd rest; or whole packs, which `out_offset` may
  // prevent.
  int64_t columns;
  int64_t out_offset;
};

std::vector<SumRowsCase> SumRowsCases() {
  std::vector<SumRowsCase> cases;
  for (const Device device : testing::ComputeDevices()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      cases.push_back({device, dtype, 70'001, 0});
      cases.push_back({device, dtype, 4096, 0});
      cases.push_back({device, dtype, 4096, 3});
    }
  }
  return cases;
}

std::string SumRowsCaseName(const ::testing::TestParamInfo<SumRowsCase>& info) {
  return std::string(info.param.device.is_cuda() ? "cuda_" : "cpu_") + Name(info.param.dtype) +
         "_" + std::to_string(info.param.columns) + "_at_" + std::to_string(info.param.out_offset);
}

class SumRowsTest : public ::testing::TestWithParam<SumRowsCase> {
 protected:
  SumRowsTest() { std::fill_n(all_.tensor().data<float>(), all_.tensor().elements(), kBefore); }

  static int64_t columns() { return GetParam().columns; }
  // Returns when the sums are there.
  const float* Run(Accumulate accumulate) {
    const int64_t begin = GetParam().out_offset;
    const Tensor out = all_.tensor().Slice(begin, begin + columns());
    SumRows(rows_, kScale, accumulate, out, stream_);
    stream_.Synchronize();
    return out.data<float>();
  }
  // What lies before and after the sums.
  void ExpectOthersUntouched() {
    const float* values = all_.tensor().data<float>();
    for (int64_t i = 0; i < all_.tensor().elements(); ++i) {
      if (i < GetParam().out_offset || i >= GetParam().out_offset + columns()) {
        EXPECT_EQ(values[i], kBefore) << i;
      }
    }
  }

 private:
  testing::TensorsOn memory_{GetParam().device};

 protected:
  HostTensor rows_ = Numbers({kRows, columns()}, GetParam().dtype);
  HostTensor all_{{columns() + 8}, DType::kF32};
  Stream stream_{GetParam().device};
};
INSTANTIATE_TEST_SUITE_P(Devices, SumRowsTest, ::testing::ValuesIn(SumRowsCases()),
                         SumRowsCaseName);

TEST_P(SumRowsTest, AddsInRowOrderThenScales) {
  const float* out = Run(Accumulate::kOverwrite);
  const std::vector<double> rows = testing::ToDoubles(rows_);
  for (int64_t i = 0; i < columns(); ++i) {
    ASSERT_EQ(out[i], Expected(rows, columns(), i)) << i;
  }
  ExpectOthersUntouched();
}

TEST_P(SumRowsTest, AccumulateAddsTheScaledSumToWhatIsThere) {
  const float* out = Run(Accumulate::kAdd);
  const std::vector<double> rows = testing::ToDoubles(rows_);
  for (int64_t i = 0; i < columns(); ++i) {
    ASSERT_EQ(out[i], kBefore + Expected(rows, columns(), i)) << i;
  }
  ExpectOthersUntouched();
}

TEST_P(SumRowsTest, RoundsTheScaledSumToBf16Once) {
  const int64_t begin = GetParam().out_offset;
  const HostTensor all({columns() + 8}, DType::kBF16);
  BF16* const values = all.tensor().data<BF16>();
  std::fill_n(values, columns() + 8, BF16(kBefore));
  SumRows(rows_, kScale, Accumulate::kOverwrite, all.tensor().Slice(begin, begin + columns()),
          stream_);
  stream_.Synchronize();
  const std::vector<double> rows = testing::ToDoubles(rows_);
  for (int64_t i = 0; i < columns() + 8; ++i) {
    const bool is_sum = i >= begin && i < begin + columns();
    ASSERT_EQ(values[i], BF16(is_sum ? Expected(rows, columns(), i - begin) : kBefore)) << i;
  }
}

TEST_P(SumRowsTest, BitsDoNotDependOnTheThreadCount) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const float* out = Run(Accumulate::kOverwrite);
  const std::vector<float> one_thread(out, out + columns());
  omp_set_num_threads(4);
  Run(Accumulate::kOverwrite);
  omp_set_num_threads(threads);
  EXPECT_EQ(std::memcmp(one_thread.data(), out, one_thread.size() * sizeof(float)), 0);
}

TEST(SumRowsSmallTest, OneRowIsScaled) {
  float row[3] = {1, -2, 3};
  float out[3] = {};
  Stream stream(Device{});
  SumRows({row, {1, 3}, DType::kF32, Device{}}, 2, Accumulate::kOverwrite,
          {out, {3}, DType::kF32, Device{}}, stream);
  EXPECT_EQ(out[0], 2);
  EXPECT_EQ(out[1], -4);
  EXPECT_EQ(out[2], 6);
}

// Rounded after every addition, both sums would stay 1. What lies in the middle goes to even.
TEST(SumRowsSmallTest, SumsAreNotRoundedToBf16OnTheWay) {
  BF16 rows[6] = {BF16(1),         BF16(1),         BF16(0x0.Cp-8F),
                  BF16(0x0.8p-8F), BF16(0x0.Cp-8F), BF16(0x0.8p-8F)};
  BF16 out[2] = {};
  Stream stream(Device{});
  SumRows({rows, {3, 2}, DType::kBF16, Device{}}, 1, Accumulate::kOverwrite,
          {out, {2}, DType::kBF16, Device{}}, stream);
  EXPECT_EQ(static_cast<float>(out[0]), 1 + 0x1p-7F);
  EXPECT_EQ(static_cast<float>(out[1]), 1);
}

TEST(SumRowsSmallTest, MetaComputesNothing) {
  const Device meta{DeviceKind::kMeta, 0};
  Stream stream(meta);
  SumRows({nullptr, {4, int64_t{1} << 40}, DType::kBF16, meta}, 1, Accumulate::kAdd,
          {nullptr, {int64_t{1} << 40}, DType::kF32, meta}, stream);
}

TEST(SumRowsDeathTest, RefusesWrongArguments) {
  float memory[32] = {};
  Stream stream(Device{});
  const Tensor rows(memory, {2, 4}, DType::kF32, Device{});
  const auto out = [&](int64_t n, DType dtype) {
    return Tensor(memory + 16, {n}, dtype, Device{});
  };
  EXPECT_DEATH(SumRows(rows, 1, Accumulate::kAdd, out(3, DType::kF32), stream), "8 vs. 6");
  EXPECT_DEATH(SumRows(rows, 1, Accumulate::kAdd, out(4, DType::kI32), stream), "int32");
  EXPECT_DEATH(SumRows(rows, 1, Accumulate::kAdd, out(4, DType::kBF16), stream), "kOverwrite");
  EXPECT_DEATH(SumRows(out(4, DType::kF64).Reshape({1, 4}), 1, Accumulate::kAdd,
                       out(4, DType::kF32), stream),
               "fp64");
}

}  // namespace
}  // namespace panthera
