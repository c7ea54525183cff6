#include "runtime/params/name_hash.h"

#include <gtest/gtest.h>

namespace panthera {
namespace {

// Runs that go on elsewhere must draw the same numbers, so the values are part of the contract.
TEST(HashNameTest, IsXxh64WithPublishedValues) {
  EXPECT_EQ(HashName("", 0), 0xEF46DB3751D8E999U);
  EXPECT_EQ(HashName("abc", 0), 0x44BC2CF5AD770999U);
}

TEST(HashNameTest, NameAndSeedBothCount) {
  EXPECT_NE(HashName("model.norm.weight", 1), HashName("model.norm.weight", 2));
  EXPECT_NE(HashName("model.norm.weight", 1), HashName("model.norm.bias", 1));
}

}  // namespace
}  // namespace panthera
