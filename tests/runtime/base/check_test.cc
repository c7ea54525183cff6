#include "runtime/base/check.h"

#include <string>

#include "absl/status/status.h"
#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(CheckDeathTest, PrintsPlaceConditionAndReason) {
  const int rows = 3;
  EXPECT_DEATH(CHECK(rows == 4) << "rows of "
                                << "logits",
               "check_test.cc:[0-9]+: CHECK failed: rows == 4 rows of logits");
}

TEST(CheckDeathTest, ComparisonsPrintBothValues) {
  const int rows = 3;
  const std::string name = "up";
  EXPECT_DEATH(CHECK_EQ(rows, 4), "CHECK failed: rows == 4 \\(3 vs. 4\\)");
  EXPECT_DEATH(CHECK_NE(rows, 3), "rows != 3 \\(3 vs. 3\\)");
  EXPECT_DEATH(CHECK_LT(rows, 3), "rows < 3 \\(3 vs. 3\\)");
  EXPECT_DEATH(CHECK_LE(rows, 2), "rows <= 2 \\(3 vs. 2\\)");
  EXPECT_DEATH(CHECK_GT(rows, 3), "rows > 3 \\(3 vs. 3\\)");
  EXPECT_DEATH(CHECK_GE(rows, 4), "rows >= 4 \\(3 vs. 4\\)");
  EXPECT_DEATH(CHECK_EQ(name, "down") << "of layer " << 2,
               "name == \"down\" \\(up vs. down\\) of layer 2");
}

TEST(CheckDeathTest, StatusIsPrinted) {
  EXPECT_DEATH(CHECK_OK(absl::NotFoundError("no such file")),
               "is OK \\(NOT_FOUND: no such file\\)");
}

TEST(CheckTest, PassingChecksEvaluateOperandsOnceAndMessagesNever) {
  int operands = 0;
  int messages = 0;
  CHECK_EQ(++operands, 1) << ++messages;
  CHECK(++operands == 2) << ++messages;
  CHECK_OK(absl::OkStatus()) << ++messages;
  EXPECT_EQ(operands, 2);
  EXPECT_EQ(messages, 0);
}

TEST(CheckTest, IsOneStatementWithoutAnElseOfItsOwn) {
  bool other = false;
  if (other)
    CHECK_EQ(1, 2) << "not reached";
  else
    other = true;
  EXPECT_TRUE(other);
}

}  // namespace
}  // namespace panthera
