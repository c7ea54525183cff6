#include "launcher/field_text.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "runtime/base/check.h"

namespace panthera {

std::string RealText(double value) {
  char digits[64];
  const std::to_chars_result end = std::to_chars(digits, digits + sizeof(digits), value);
  CHECK(end.ec == std::errc());
  std::string text(digits, end.ptr);
  // Digits alone are an integer in TOML, and of 64 bits at most.
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text;
}

std::string QuotedText(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      text += '\\';
      text += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      absl::StrAppendFormat(&text, "\\u%04X", static_cast<unsigned int>(c));
    } else {
      text += c;
    }
  }
  return text + "\"";
}

std::string RangeText(IntRange range) {
  if (range.max == std::numeric_limits<int64_t>::max()) {
    return absl::StrCat("at least ", range.min);
  }
  return absl::StrCat(range.min, " to ", range.max);
}

std::string RangeText(RealRange range) {
  if (range.max == std::numeric_limits<double>::max()) {
    return absl::StrCat("at least ", RealText(range.min));
  }
  return absl::StrCat(RealText(range.min), " to ", RealText(range.max));
}

std::string ChoicesText(std::span<const char* const> names) {
  std::string text;
  for (const char* name : names) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", QuotedText(name));
  }
  return text;
}

}  // namespace panthera
