#include "runtime/base/dtype.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace panthera {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

BF16 FromBits(uint16_t bits) { return std::bit_cast<BF16>(bits); }
float Rounded(float value) { return static_cast<float>(BF16(value)); }

// 1 + units / 2^7: neighbours in bf16 are one unit apart.
constexpr float OnePlus(double units) { return static_cast<float>(1 + units * 0x1p-7); }

TEST(BF16Test, EveryValueComesBackBitForBitAndNansBecomeQuiet) {
  for (uint32_t i = 0; i <= 0xFFFF; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const auto wide = static_cast<float>(FromBits(bits));
    ASSERT_EQ(std::bit_cast<uint32_t>(wide), i << 16);
    const uint16_t expected = std::isnan(wide) ? static_cast<uint16_t>(bits | 0x40U) : bits;
    ASSERT_EQ(BF16(wide).bits, expected) << i;
  }
}

TEST(BF16Test, RoundsToNearest) {
  EXPECT_EQ(Rounded(OnePlus(0.49)), OnePlus(0));
  EXPECT_EQ(Rounded(OnePlus(0.51)), OnePlus(1));
  EXPECT_EQ(Rounded(-OnePlus(1.49)), -OnePlus(1));
  EXPECT_EQ(Rounded(-OnePlus(1.51)), -OnePlus(2));
}

TEST(BF16Test, TiesGoToEven) {
  EXPECT_EQ(Rounded(OnePlus(0.5)), OnePlus(0));
  EXPECT_EQ(Rounded(OnePlus(1.5)), OnePlus(2));
  EXPECT_EQ(Rounded(-OnePlus(0.5)), -OnePlus(0));
  EXPECT_EQ(Rounded(-OnePlus(1.5)), -OnePlus(2));
  // Carries into the exponent.
  EXPECT_EQ(Rounded(OnePlus(127.5)), 2);
}

// Between any two neighbours: below, at and above the middle.
TEST(BF16Test, RoundsBetweenAllFiniteNeighbours) {
  for (uint32_t low = 0; low < 0x7F7F; ++low) {
    const uint32_t even = low + (low & 1U);
    ASSERT_EQ(BF16(std::bit_cast<float>((low << 16) + 0x7FFFU)).bits, low);
    ASSERT_EQ(BF16(std::bit_cast<float>((low << 16) + 0x8000U)).bits, even);
    ASSERT_EQ(BF16(std::bit_cast<float>((low << 16) + 0x8001U)).bits, low + 1);
  }
}

TEST(BF16Test, InfinityStaysAndTooLargeValuesBecomeInfinite) {
  EXPECT_EQ(Rounded(kInfinity), kInfinity);
  EXPECT_EQ(Rounded(-kInfinity), -kInfinity);
  EXPECT_EQ(Rounded(std::numeric_limits<float>::max()), kInfinity);
  const float largest = 0x1.FEp+127F;
  EXPECT_EQ(Rounded(largest), largest);
  // The middle between the largest value and the next power of two, and what is just below.
  EXPECT_EQ(Rounded(0x1.FFp+127F), kInfinity);
  EXPECT_EQ(Rounded(std::nextafter(0x1.FFp+127F, 0.0F)), largest);
}

TEST(BF16Test, NanStaysNanWhateverItsPayload) {
  // Truncating the payload alone would give infinity; rounding it up would run into the sign.
  for (const uint32_t pattern : {0x7F800001U, 0x7FFFFFFFU, 0xFF800001U, 0xFFFFFFFFU, 0x7FC00000U}) {
    const BF16 value(std::bit_cast<float>(pattern));
    EXPECT_TRUE(std::isnan(static_cast<float>(value))) << std::hex << pattern;
    EXPECT_EQ(value.bits >> 15, pattern >> 31) << std::hex << pattern;
    EXPECT_NE(value.bits & 0x40U, 0U) << std::hex << pattern;
  }
}

TEST(BF16Test, ZerosKeepTheirSignAndSubnormalsTheirValue) {
  EXPECT_EQ(BF16(0.0F).bits, 0x0000);
  EXPECT_EQ(BF16(-0.0F).bits, 0x8000);
  EXPECT_EQ(Rounded(0x1p-133F), 0x1p-133F);
  EXPECT_EQ(Rounded(0x1p-149F), 0.0F);
}

// The value of a finite binary16 by the definition of the format.
double ValueOfHalf(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int fraction = bits & 0x3FF;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits >> 15) == 0 ? size : -size;
}

TEST(F16Test, EveryValueIsThatOfTheFormatAndComesBackBitForBit) {
  for (uint32_t i = 0; i <= 0xFFFF; ++i) {
    const auto half = std::bit_cast<F16>(static_cast<uint16_t>(i));
    const auto wide = static_cast<float>(half);
    ASSERT_EQ(std::signbit(wide), i >= 0x8000) << i;
    if ((i & 0x7C00) != 0x7C00) {
      ASSERT_EQ(wide, ValueOfHalf(half.bits)) << i;
      ASSERT_EQ(F16(wide), half) << i;
    } else if ((i & 0x3FF) == 0) {
      ASSERT_EQ(std::abs(wide), kInfinity);
      ASSERT_EQ(F16(wide), half);
    } else {
      ASSERT_TRUE(std::isnan(wide)) << i;
      ASSERT_EQ(F16(wide).bits, i | 0x200) << "a quiet NaN with the same payload";
    }
  }
}

// Between any two neighbours: below, at and above the middle. The neighbour of the largest value
// would be 2^16, which is infinite.
TEST(F16Test, RoundsBetweenAllNeighboursToNearestAndTiesToEven) {
  for (uint16_t low = 0; low < 0x7C00; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const double above = high == 0x7C00 ? 0x1p16 : ValueOfHalf(high);
    const auto middle = static_cast<float>((ValueOfHalf(low) + above) / 2);
    const auto even = static_cast<uint16_t>(low + (low & 1));
    ASSERT_EQ(F16(std::nextafter(middle, 0.0F)).bits, low);
    ASSERT_EQ(F16(middle).bits, even);
    ASSERT_EQ(F16(std::nextafter(middle, kInfinity)).bits, high);
    ASSERT_EQ(F16(-middle).bits, even | 0x8000);
  }
  EXPECT_EQ(F16(std::numeric_limits<float>::max()).bits, 0x7C00);
  EXPECT_EQ(F16(-std::numeric_limits<float>::denorm_min()).bits, 0x8000);
}

TEST(DTypeTest, SizesAreThoseOfTheirTypes) {
  EXPECT_EQ(SizeOf(DTypeOf<float>::value), 4);
  EXPECT_EQ(SizeOf(DTypeOf<double>::value), 8);
  EXPECT_EQ(SizeOf(DTypeOf<BF16>::value), 2);
  EXPECT_EQ(SizeOf(DTypeOf<F16>::value), 2);
  EXPECT_EQ(SizeOf(DTypeOf<int64_t>::value), 8);
  EXPECT_EQ(SizeOf(DTypeOf<int32_t>::value), 4);
  EXPECT_EQ(SizeOf(DTypeOf<uint8_t>::value), 1);
}

TEST(DTypeTest, UnitRoundoffIsTheErrorOfTheWorstTie) {
  EXPECT_EQ(OnePlus(0.5) - Rounded(OnePlus(0.5)), UnitRoundoff(DType::kBF16));
  EXPECT_EQ(1 + 0x1p-11 - static_cast<float>(F16(1 + 0x1p-11)), UnitRoundoff(DType::kF16));
  EXPECT_EQ(UnitRoundoff(DType::kF32), std::numeric_limits<float>::epsilon() / 2);
  EXPECT_EQ(UnitRoundoff(DType::kF64), std::numeric_limits<double>::epsilon() / 2);
}

TEST(DTypeDeathTest, DispatchFloatRefusesOtherTypes) {
  EXPECT_DEATH(DispatchFloat(DType::kI32, []<typename T>() {}), "int32 vs. fp32");
  EXPECT_DEATH(UnitRoundoff(DType::kU8), "uint8 is not a floating type");
}

}  // namespace
}  // namespace panthera
