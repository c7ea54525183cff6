#include "runtime/data/utf8.h"

#include <cstdint>
#include <cstring>

namespace panthera {
namespace {

// The length of the well-formed character that `text` begins with, or 0.
size_t CharacterLength(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  const unsigned second = byte(1);
  if (lead < 0x80) {
    return text.empty() ? 0 : 1;
  }
  if (lead < 0xC2 || lead > 0xF4 || !continues(1)) {
    return 0;
  }
  if (lead < 0xE0) {
    return 2;
  }
  if (lead < 0xF0) {
    const bool overlong = lead == 0xE0 && second < 0xA0;
    const bool surrogate = lead == 0xED && second > 0x9F;
    return continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  const bool overlong = lead == 0xF0 && second < 0x90;
  const bool too_large = lead == 0xF4 && second > 0x8F;
  return continues(2) && continues(3) && !overlong && !too_large ? 4 : 0;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    uint64_t eight_bytes;
    if (text.size() - position >= sizeof(eight_bytes)) {
      std::memcpy(&eight_bytes, text.data() + position, sizeof(eight_bytes));
      if ((eight_bytes & 0x8080808080808080U) == 0) {
        position += sizeof(eight_bytes);
        continue;
      }
    }
    const size_t length = CharacterLength(text.substr(position));
    if (length == 0) {
      break;
    }
    position += length;
  }
  return position;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string result;
  while (true) {
    const size_t valid = ValidUtf8Prefix(text);
    result.append(text.substr(0, valid));
    if (valid == text.size()) {
      return result;
    }
    result.append("\xEF\xBF\xBD");
    text.remove_prefix(valid + 1);
  }
}

size_t CharacterBoundary(std::string_view text, size_t position) {
  if (position >= text.size()) {
    return text.size();
  }
  while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0U) == 0x80U) {
    --position;
  }
  return position;
}

}  // namespace panthera
