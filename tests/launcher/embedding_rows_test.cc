#include "launcher/embedding_rows.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(TokenClassesTest, AreThePowersOfTwoOfTheCountsAndOneForNone) {
  const std::vector<int64_t> counts = {0, 1, 2, 3, 4, 7, 8, 1023, 1024};
  const TokenClasses classes(counts);
  const std::vector<int64_t> expected_from = {0, 1, 2, 2, 4, 4, 8, 512, 1024};
  EXPECT_EQ(classes.vocabulary(), 9);
  EXPECT_EQ(classes.size(), 12);
  for (size_t token = 0; token < counts.size(); ++token) {
    const int its = classes.class_of(static_cast<int64_t>(token));
    EXPECT_EQ(TokenClasses::CountFrom(its), expected_from[token]) << token;
    EXPECT_EQ(its == 0, counts[token] == 0);
  }
}

// Rows of width 2: the RMS of squares 8 + 10 over two rows is the root of 18 / 4.
TEST(RowRmsByClassTest, IsTheRootOfTheMeanSquareOfAClassAndOfItsLargestRow) {
  const TokenClasses classes(std::vector<int64_t>{2, 0, 3, 40});
  const std::vector<double> squares = {8, 50, 10, 0.02};
  const std::vector<RowClassMetrics> rows = RowRmsByClass(squares, 2, classes);
  ASSERT_EQ(rows.size(), 3U);
  const std::vector<RowClassMetrics> expected = {
      {.tokens_from = 0, .rows = 1, .rms = 5, .largest_rms = 5},
      {.tokens_from = 2, .rows = 2, .rms = std::sqrt(4.5), .largest_rms = std::sqrt(5.0)},
      {.tokens_from = 32, .rows = 1, .rms = 0.1, .largest_rms = 0.1}};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(rows[i].tokens_from, expected[i].tokens_from);
    EXPECT_EQ(rows[i].rows, expected[i].rows);
    EXPECT_DOUBLE_EQ(rows[i].rms, expected[i].rms);
    EXPECT_DOUBLE_EQ(rows[i].largest_rms, expected[i].largest_rms);
  }
}

}  // namespace
}  // namespace panthera
