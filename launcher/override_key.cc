#include "launcher/override_key.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "absl/strings/ascii.h"

namespace panthera {
namespace {

bool IsName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
  });
}

std::optional<KeyPart> ParsePart(std::string_view text) {
  KeyPart part;
  if (text.ends_with(']')) {
    const size_t bracket = text.find('[');
    if (bracket == std::string_view::npos) {
      return std::nullopt;
    }
    const std::string_view digits = text.substr(bracket + 1, text.size() - bracket - 2);
    size_t index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      return std::nullopt;
    }
    part.index = index;
    text = text.substr(0, bracket);
  }
  if (!IsName(text)) {
    return std::nullopt;
  }
  part.name = std::string(text);
  return part;
}

}  // namespace

std::optional<std::vector<KeyPart>> ParseOverrideKey(std::string_view key) {
  std::vector<KeyPart> parts;
  while (true) {
    const size_t dot = key.find('.');
    const std::optional<KeyPart> part = ParsePart(key.substr(0, dot));
    if (!part) {
      return std::nullopt;
    }
    parts.push_back(*part);
    if (dot == std::string_view::npos) {
      return parts;
    }
    key.remove_prefix(dot + 1);
  }
}

}  // namespace panthera
