#include "runtime/data/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace panthera {
namespace {

// The UTF-8 form of any number below 2^21, whether it is a character or not.
std::string Encode(uint32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    return {static_cast<char>(code)};
  }
  if (code < 0x800) {
    return {static_cast<char>(0xC0 | (code >> 6)), tail(0)};
  }
  if (code < 0x10000) {
    return {static_cast<char>(0xE0 | (code >> 12)), tail(6), tail(0)};
  }
  return {static_cast<char>(0xF0 | (code >> 18)), tail(12), tail(6), tail(0)};
}

TEST(Utf8Test, AcceptsExactlyTheUnicodeScalarValues) {
  for (uint32_t code = 0; code < (1U << 21); ++code) {
    const std::string text = Encode(code);
    const bool is_character = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    ASSERT_EQ(ValidUtf8Prefix(text), is_character ? text.size() : 0U) << std::hex << code;
  }
}

TEST(Utf8Test, RefusesOverlongForms) {
  for (const char* text : {"\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF",
                           "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF"}) {
    EXPECT_EQ(ValidUtf8Prefix(text), 0U);
  }
}

TEST(Utf8Test, FindsTheFirstBadByteAtAnyPlace) {
  for (size_t place = 0; place < 40; ++place) {
    std::string text(40, 'x');
    text[place] = '\xFF';
    EXPECT_EQ(ValidUtf8Prefix(text), place);
  }
}

TEST(Utf8Test, ACharacterThatIsCutIsNotValid) {
  EXPECT_EQ(ValidUtf8Prefix("ab\xE4\xBD"), 2U);
  EXPECT_EQ(ValidUtf8Prefix("ab\xF0\x9F\x98"), 2U);
  EXPECT_EQ(ValidUtf8Prefix("ab\xC3"), 2U);
}

TEST(Utf8Test, ReplacesEveryBadByte) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF\xE4\xBD\xA0\xE4\xBDz"),
            "a\xEF\xBF\xBD\xE4\xBD\xA0\xEF\xBF\xBD\xEF\xBF\xBDz");
  EXPECT_EQ(ReplaceInvalidUtf8("plain"), "plain");
}

TEST(Utf8Test, CharacterBoundaryGoesBackToTheStart) {
  const std::string text = "a\xE4\xBD\xA0z";
  EXPECT_EQ(CharacterBoundary(text, 1), 1U);
  EXPECT_EQ(CharacterBoundary(text, 2), 1U);
  EXPECT_EQ(CharacterBoundary(text, 3), 1U);
  EXPECT_EQ(CharacterBoundary(text, 4), 4U);
  EXPECT_EQ(CharacterBoundary(text, 9), 5U);
}

}  // namespace
}  // namespace panthera
