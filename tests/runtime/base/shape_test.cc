#include "runtime/base/shape.h"

#include <cstdint>
#include <sstream>

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(ShapeTest, ElementsAreTheProductOfAllSizes) {
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape({7}).elements(), 7);
  EXPECT_EQ(Shape({2, 3, 4, 5}).elements(), 120);
  EXPECT_EQ(Shape({2, 0, 4}).elements(), 0);
  EXPECT_EQ(Shape({int64_t{1} << 31, int64_t{1} << 31}).elements(), int64_t{1} << 62);
}

TEST(ShapeTest, EqualMeansRankAndSizes) {
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_NE(Shape({2, 3}), Shape({3, 2}));
  EXPECT_NE(Shape({2}), Shape({2, 0}));
  EXPECT_NE(Shape(), Shape({0}));
}

TEST(ShapeTest, WithLeadingReplacesTheFirstSizeOfACopy) {
  const Shape shape{2, 3};
  EXPECT_EQ(shape.WithLeading(9), Shape({9, 3}));
  EXPECT_EQ(shape, Shape({2, 3}));
}

TEST(ShapeTest, PrintsItsSizes) {
  std::ostringstream out;
  out << Shape{2, 3} << Shape{};
  EXPECT_EQ(out.str(), "[2, 3][]");
}

TEST(ShapeTest, DivisionRoundsUp) {
  EXPECT_EQ(CeilDiv(0, 4), 0);
  EXPECT_EQ(CeilDiv(1, 4), 1);
  EXPECT_EQ(CeilDiv(4, 4), 1);
  EXPECT_EQ(CeilDiv(5, 4), 2);
  EXPECT_EQ(RoundUp(0, 256), 0);
  EXPECT_EQ(RoundUp(256, 256), 256);
  EXPECT_EQ(RoundUp(257, 256), 512);
}

TEST(ShapeDeathTest, RefusesWhatIsNoShape) {
  EXPECT_DEATH(Shape({-1}), "-1 vs. 0");
  EXPECT_DEATH(Shape({1, 1, 1, 1, 1}), "5 vs. 4");
  EXPECT_DEATH(Shape({2, 3})[2], "2 vs. 2");
  // Volatile, or the compiler itself would complain.
  volatile int below = -1;
  EXPECT_DEATH(Shape({2, 3})[below], "-1 vs. 0");
  EXPECT_DEATH(Shape().WithLeading(1), "0 vs. 1");
  EXPECT_DEATH((void)Shape({int64_t{1} << 32, int64_t{1} << 32}).elements(),
               "\\[4294967296, 4294967296\\] does not fit 64 bits");
}

}  // namespace
}  // namespace panthera
