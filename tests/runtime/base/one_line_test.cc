#include "runtime/base/one_line.h"

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(OneLineTest, ShowsControlCharactersAndKeepsTheRest) {
  EXPECT_EQ(OneLine("two\nlines\r\x1B[31m\x7F"), "two\\x0Alines\\x0D\\x1B[31m\\x7F");
  EXPECT_EQ(OneLine(std::string("nul\0end", 7)), "nul\\x00end");
  EXPECT_EQ(OneLine("\"quoted\" \\ \xC3\xA4"), "\"quoted\" \\ \xC3\xA4");
  EXPECT_EQ(OneLine(""), "");
}

}  // namespace
}  // namespace panthera
