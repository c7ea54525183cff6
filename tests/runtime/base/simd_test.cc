#include "runtime/base/simd.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

// Every 61st float of both signs, in all binades.
TEST(ExpTest, IsWithinTwoUnitsInTheLastPlace) {
  double worst = 0;
  for (uint32_t bits = 0; bits < std::bit_cast<uint32_t>(88.7F); bits += 61) {
    for (const float x : {std::bit_cast<float>(bits), -std::bit_cast<float>(bits)}) {
      if (x < -86.98F) {
        continue;
      }
      const double exact = std::exp(static_cast<double>(x));
      const double unit = std::ldexp(1.0, std::ilogb(exact) - 23);
      worst = std::max(worst, std::fabs(static_cast<double>(Exp(x)) - exact) / unit);
    }
  }
  EXPECT_LT(worst, 2);
}

TEST(ExpTest, EndsWhereFloatsEnd) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Exp(0.0F), 1.0F);
  EXPECT_EQ(Exp(88.8F), kInfinity);
  EXPECT_EQ(Exp(1e30F), kInfinity);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_GT(Exp(-86.9F), 0.0F);
  EXPECT_EQ(Exp(-87.1F), 0.0F);
  EXPECT_EQ(Exp(-1e30F), 0.0F);
  EXPECT_EQ(Exp(-kInfinity), 0.0F);
  EXPECT_TRUE(std::isnan(Exp(std::numeric_limits<float>::quiet_NaN())));
}

// Written without lanes: what the order of a sum is defined to be.
double SumInDefinedOrder(const std::vector<float>& terms) {
  double total = 0;
  for (size_t block = 0; block < terms.size(); block += kSumBlock) {
    float lanes[kSumLanes] = {};
    for (size_t i = block; i < std::min(terms.size(), block + kSumBlock); ++i) {
      lanes[(i - block) % kSumLanes] += terms[i];
    }
    for (int half : {8, 4, 2, 1}) {
      for (int i = 0; i < half; ++i) {
        lanes[i] += lanes[i + half];
      }
    }
    total += static_cast<double>(lanes[0]);
  }
  return total;
}

PANTHERA_SIMD double VectorSum(const float* terms, int64_t count) {
  return SumTerms(count, [&](int64_t i) PANTHERA_INLINE { return terms[i]; });
}

PANTHERA_SIMD float VectorMax(const float* values, int64_t count) {
  return MaxOf(count, [&](int64_t i) PANTHERA_INLINE { return values[i]; });
}

PANTHERA_SIMD void VectorExp(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) {
    y[i] = Exp(x[i]);
  }
}

std::vector<float> RandomFloats(int64_t count) {
  std::vector<float> floats;
  for (const double value : testing::RandomDoubles(count, static_cast<uint64_t>(count), 20)) {
    floats.push_back(static_cast<float>(value));
  }
  return floats;
}

TEST(SumTermsTest, HasOneOrderWhateverTheInstructionSet) {
  for (const int64_t count : {0, 1, 15, 16, 17, 1000, 1024, 1025, 5000}) {
    const std::vector<float> terms = RandomFloats(count);
    EXPECT_EQ(VectorSum(terms.data(), count), SumInDefinedOrder(terms)) << count;
  }
}

TEST(MaxOfTest, FindsTheLargestAndPassesOverNan) {
  for (const int64_t count : {1, 15, 16, 17, 1000}) {
    std::vector<float> values = RandomFloats(count);
    for (const size_t at : {size_t{0}, values.size() / 2, values.size() - 1}) {
      std::vector<float> with_peak = values;
      with_peak[at] = 1e9F;
      EXPECT_EQ(VectorMax(with_peak.data(), count), 1e9F);
    }
    values.push_back(std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(VectorMax(values.data(), count + 1), VectorMax(values.data(), count));
  }
  EXPECT_EQ(VectorMax(nullptr, 0), -std::numeric_limits<float>::infinity());
}

TEST(ExpTest, HasTheSameBitsInLoopsOfAnyInstructionSet) {
  const std::vector<float> x = RandomFloats(1003);
  std::vector<float> y(x.size());
  VectorExp(x.data(), static_cast<int64_t>(x.size()), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(y[i], Exp(x[i])) << x[i];
  }
}

}  // namespace
}  // namespace panthera
