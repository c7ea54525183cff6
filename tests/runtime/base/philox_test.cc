#include "runtime/base/philox.h"

#include <cstdint>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::ElementsAre;

std::vector<uint32_t> Words(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  const Philox draw = Philox4x32(key, counter_low, counter_high);
  return {draw.value, draw.value + 4};
}

// The known answers that Random123 publishes for philox4x32 with 10 rounds (tests/kat_vectors).
// Words are given there from the lowest: key 0xA4093822 0x299F31D0 is 0x299F31D0A4093822.
TEST(PhiloxTest, GivesThePublishedKnownAnswers) {
  EXPECT_THAT(Words(0, 0, 0), ElementsAre(0x6627E8D5U, 0xE169C58DU, 0xBC57AC4CU, 0x9B00DBD8U));
  EXPECT_THAT(Words(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}),
              ElementsAre(0x408F276DU, 0x41C83B0EU, 0xA20BC7C6U, 0x6D5451FDU));
  EXPECT_THAT(Words(0x299F31D0A4093822U, 0x85A308D3243F6A88U, 0x0370734413198A2EU),
              ElementsAre(0xD16CFE09U, 0x94FDCCEBU, 0x5001E420U, 0x24126EA1U));
}

TEST(UnitFloatTest, CoversTheUnitIntervalWithoutItsEnd) {
  EXPECT_EQ(UnitFloat(0), 0.0F);
  EXPECT_EQ(UnitFloat(0xFFU), 0.0F);
  EXPECT_EQ(UnitFloat(0x100U), 0x1p-24F);
  EXPECT_EQ(UnitFloat(0x80000000U), 0.5F);
  EXPECT_EQ(UnitFloat(0xFFFFFFFFU), 1.0F - 0x1p-24F);
}

}  // namespace
}  // namespace panthera
