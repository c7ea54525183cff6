#include "optim/direction_codes.h"

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "optim/update_rules.h"
#include "runtime/base/shape.h"
#include "tests/optim/small_model.h"

namespace panthera {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kTiniest = std::numeric_limits<float>::denorm_min();

TEST(DirectionCodesTest, FollowTheSignAndNeverMakeAZeroMove) {
  for (const float zero : {0.0F, -0.0F, kNan, -kNan}) {
    EXPECT_EQ(DirectionCode(zero), kCodeZero) << zero;
  }
  for (const float positive : {kTiniest, 1e-30F, 1.0F, kInfinity}) {
    EXPECT_EQ(DirectionCode(positive), kCodePlus) << positive;
    EXPECT_EQ(DirectionCode(-positive), kCodeMinus) << positive;
  }
  EXPECT_EQ(DirectionOf(kCodeZero), 0);
  EXPECT_EQ(DirectionOf(kCodePlus), 1);
  EXPECT_EQ(DirectionOf(kCodeMinus), -1);
}

// Four to a byte, the first in the lowest bits; what is left of the last byte rests.
TEST(DirectionCodesTest, ArePackedAsDocumented) {
  const std::vector<float> directions = {1, -2, 0, 3, -1, 0};
  std::vector<uint8_t> codes(3, 0x55);
  PackDirections(directions.data(), 6, codes.data());
  EXPECT_EQ(codes, (std::vector<uint8_t>{0b01'00'10'01, 0b11'11'00'10, 0x55}));
  EXPECT_FALSE(AllRest(codes.data(), 6));
  PackRests(6, codes.data());
  EXPECT_EQ(codes, (std::vector<uint8_t>{0xFF, 0xFF, 0x55}));
  EXPECT_TRUE(AllRest(codes.data(), 6));
  EXPECT_FALSE(AllRest(codes.data(), 9)) << "the third byte counts";
}

// As SignStep by the directions that were packed, bit for bit, for every length.
TEST(DirectionCodesTest, AStepByCodesHasTheBitsOfAStepByDirections) {
  for (const int64_t count : {1, 2, 3, 4, 5, 37, 1024, 1027, 2050}) {
    std::vector<float> directions;
    std::vector<float> theta;
    for (int64_t i = 0; i < count; ++i) {
      const float noise = testing::Noise(1, ParamId{0}, i);
      directions.push_back(i % 5 == 0 ? 0.0F : i % 7 == 0 ? kNan : noise);
      theta.push_back(testing::Noise(2, ParamId{0}, i));
    }
    std::vector<uint8_t> codes(static_cast<size_t>(CeilDiv(count, kCodesPerByte)));
    PackDirections(directions.data(), count, codes.data());
    // The first and the last rest.
    codes[0] |= 3U;
    codes.back() = static_cast<uint8_t>(codes.back() | 3U << (2 * ((count - 1) % 4)));
    std::vector<float> actual = theta;
    StepByCodes(0.01F, 0.1F, codes.data(), count, actual.data());
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      const bool rests = i == 0 || i == count - 1;
      const float expected = rests ? theta[at] : SignStep(0.01F, 0.1F, directions[at], theta[at]);
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[at]), std::bit_cast<uint32_t>(expected))
          << i << " of " << count;
    }
  }
}

}  // namespace
}  // namespace panthera
