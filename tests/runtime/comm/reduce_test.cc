#include "runtime/comm/reduce.h"

#include <omp.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/base/philox.h"

namespace panthera {
namespace {

constexpr int64_t kRows = 5;
// Several blocks, several threads' shares and an odd rest.
constexpr int64_t kColumns = 70'001;

// Numbers between 2^-20 and 2^20 in size, so that every addition rounds.
float Number(int64_t index) {
  const Philox random = Philox4x32(17, static_cast<uint64_t>(index), 0);
  const float magnitude =
      std::bit_cast<float>((107U + random.value[0] % 40U) << 23) * (1 + UnitFloat(random.value[1]));
  return (random.value[2] & 1U) != 0 ? -magnitude : magnitude;
}

template <typename T>
std::vector<T> Numbers() {
  std::vector<T> numbers;
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    numbers.push_back(T(Number(i)));
  }
  return numbers;
}

// The contract's formula, one element at a time.
template <typename T>
float Expected(const std::vector<T>& rows, int64_t column, float scale) {
  float sum = static_cast<float>(rows[static_cast<size_t>(column)]);
  for (int64_t r = 1; r < kRows; ++r) {
    sum = sum + static_cast<float>(rows[static_cast<size_t>(r * kColumns + column)]);
  }
  return scale * sum;
}

template <typename T>
class SumRowsTest : public ::testing::Test {
 protected:
  Tensor Rows() { return {rows_.data(), {kRows, kColumns}, DTypeOf<T>::value, Device{}}; }
  Tensor Out() { return {out_.data(), {kColumns}, DType::kF32, Device{}}; }

  std::vector<T> rows_ = Numbers<T>();
  std::vector<float> out_ = std::vector<float>(kColumns, 3.25F);
  Stream stream_{Device{}};
};
using FloatTypes = ::testing::Types<float, BF16>;
TYPED_TEST_SUITE(SumRowsTest, FloatTypes);

TYPED_TEST(SumRowsTest, AddsInRowOrderThenScales) {
  SumRows(this->Rows(), 0.3F, Accumulate::kOverwrite, this->Out(), this->stream_);
  for (int64_t i = 0; i < kColumns; ++i) {
    ASSERT_EQ(this->out_[static_cast<size_t>(i)], Expected(this->rows_, i, 0.3F)) << i;
  }
}

TYPED_TEST(SumRowsTest, AccumulateAddsTheScaledSumToWhatIsThere) {
  SumRows(this->Rows(), 0.3F, Accumulate::kAdd, this->Out(), this->stream_);
  for (int64_t i = 0; i < kColumns; ++i) {
    ASSERT_EQ(this->out_[static_cast<size_t>(i)], 3.25F + Expected(this->rows_, i, 0.3F)) << i;
  }
}

TYPED_TEST(SumRowsTest, BitsDoNotDependOnTheThreadCount) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  SumRows(this->Rows(), 0.3F, Accumulate::kOverwrite, this->Out(), this->stream_);
  const std::vector<float> one_thread = this->out_;
  omp_set_num_threads(4);
  SumRows(this->Rows(), 0.3F, Accumulate::kOverwrite, this->Out(), this->stream_);
  omp_set_num_threads(threads);
  EXPECT_EQ(std::memcmp(one_thread.data(), this->out_.data(), kColumns * sizeof(float)), 0);
}

TEST(SumRowsTest, OneRowIsScaled) {
  float row[3] = {1, -2, 3};
  float out[3] = {};
  Stream stream(Device{});
  SumRows({row, {1, 3}, DType::kF32, Device{}}, 2, Accumulate::kOverwrite,
          {out, {3}, DType::kF32, Device{}}, stream);
  EXPECT_EQ(out[0], 2);
  EXPECT_EQ(out[1], -4);
  EXPECT_EQ(out[2], 6);
}

TEST(SumRowsTest, MetaComputesNothing) {
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
  EXPECT_DEATH(SumRows(rows, 1, Accumulate::kAdd, out(4, DType::kI32), stream), "int32 vs. fp32");
  EXPECT_DEATH(SumRows(out(4, DType::kF64).Reshape({1, 4}), 1, Accumulate::kAdd,
                       out(4, DType::kF32), stream),
               "fp64");
}

}  // namespace
}  // namespace panthera
