#include "runtime/math/rows.h"

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

// Whole vectors of every instruction set and an odd rest.
constexpr int64_t kCount = 1003;

template <typename T>
class RowsTest : public ::testing::Test {
 protected:
  static testing::HostTensor Random(uint64_t seed) {
    return testing::RandomTensor({kCount}, DTypeOf<T>::value, seed);
  }
};
using FloatTypes = ::testing::Types<float, BF16>;
TYPED_TEST_SUITE(RowsTest, FloatTypes);

TYPED_TEST(RowsTest, LoadRowIsExact) {
  const testing::HostTensor row = this->Random(1);
  const auto* in = row.tensor().template data<TypeParam>();
  std::vector<float> out(kCount);
  LoadRow(in, kCount, out.data());
  for (size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(out[i], static_cast<float>(in[i])) << i;
  }
}

TYPED_TEST(RowsTest, AddRowAddsInFp32) {
  const testing::HostTensor row = this->Random(1);
  const auto* in = row.tensor().template data<TypeParam>();
  std::vector<float> sum(kCount, 0.3F);
  AddRow(in, kCount, sum.data());
  for (size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(sum[i], 0.3F + static_cast<float>(in[i])) << i;
  }
}

TYPED_TEST(RowsTest, StoreRowRoundsToNearest) {
  const testing::HostTensor row = testing::RandomTensor({kCount}, DType::kF32, 2);
  const float* in = row.tensor().data<float>();
  std::vector<TypeParam> out(kCount);
  StoreRow(in, kCount, out.data());
  for (size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(out[i], TypeParam(in[i])) << i;
  }
}

TYPED_TEST(RowsTest, StoreSumRoundsOnceAndMayOverwriteAnInput) {
  const testing::HostTensor a = this->Random(3);
  const testing::HostTensor b = this->Random(4);
  const testing::HostTensor out = testing::CopyOf(a);
  auto* sum = out.tensor().template data<TypeParam>();
  StoreSum(sum, b.tensor().template data<TypeParam>(), kCount, sum);
  for (int64_t i = 0; i < kCount; ++i) {
    const float exact = static_cast<float>(a.tensor().template data<TypeParam>()[i]) +
                        static_cast<float>(b.tensor().template data<TypeParam>()[i]);
    ASSERT_EQ(sum[i], TypeParam(exact)) << i;
  }
}

TYPED_TEST(RowsTest, TensorRowsBeginWhereTold) {
  const testing::HostTensor tensor = this->Random(5);
  const auto* in = tensor.tensor().template data<TypeParam>();
  float out[2];
  LoadRow(tensor, 500, 2, out);
  EXPECT_EQ(out[0], static_cast<float>(in[500]));
  AddRow(tensor, kCount - 2, 2, out);
  EXPECT_EQ(out[1], static_cast<float>(in[501]) + static_cast<float>(in[kCount - 1]));
}

TEST(RowsDeathTest, TensorRowsMustLieInside) {
  const testing::HostTensor tensor = testing::Zeros({2, 3}, DType::kF32);
  const testing::HostTensor tokens = testing::RandomTokens(4, 9, 1);
  float out[8] = {};
  EXPECT_DEATH(LoadRow(tensor, 4, 3, out), "7 vs. 6");
  EXPECT_DEATH(AddRow(tensor, -1, 3, out), "-1 vs. 0");
  EXPECT_DEATH(LoadRow(tokens, 0, 4, out), "int32 vs. fp32");
}

TEST(RowGrainTest, IsAtLeastARow) {
  EXPECT_EQ(RowGrain(1), 16384);
  EXPECT_EQ(RowGrain(4096), 4);
  EXPECT_EQ(RowGrain(1'000'000), 1);
  EXPECT_EQ(RowGrain(0), 16384);
}

}  // namespace
}  // namespace panthera
