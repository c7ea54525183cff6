#include "launcher/closest_name.h"

#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace panthera {
namespace {

TEST(ClosestNameTest, FindsOneMistakeOfEachKind) {
  const std::vector<std::string> names = {"width", "layers", "heads"};
  EXPECT_EQ(ClosestName("widt", names), "width");     // deletion
  EXPECT_EQ(ClosestName("widdth", names), "width");   // insertion
  EXPECT_EQ(ClosestName("lauers", names), "layers");  // replacement
  EXPECT_EQ(ClosestName("hedas", names), "heads");    // exchange
}

TEST(ClosestNameTest, AllowsAThirdOfTheLetters) {
  EXPECT_EQ(ClosestName("abcxyz", {"abcd"}), std::nullopt);  // 3 of 6
  EXPECT_EQ(ClosestName("abcdxy", {"abcd"}), "abcd");        // 2 of 6
  EXPECT_EQ(ClosestName("ab", {"abc"}), "abc");              // 1 of 2: always allowed
  EXPECT_EQ(ClosestName("ab", {"abcd"}), std::nullopt);      // 2 of 2
}

TEST(ClosestNameTest, PrefersFewerMistakesThenTheFirst) {
  EXPECT_EQ(ClosestName("beta", {"zeta12", "beta2", "beta1"}), "beta2");
  EXPECT_EQ(ClosestName("every", {"ever", "every"}), "every");
}

TEST(ClosestNameTest, NothingIsCloseToNothing) {
  EXPECT_EQ(ClosestName("width", {}), std::nullopt);
  EXPECT_EQ(ClosestName("", {"width"}), std::nullopt);
}

}  // namespace
}  // namespace panthera
