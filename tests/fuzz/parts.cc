#include "tests/fuzz/parts.h"

#include "absl/strings/str_join.h"

namespace panthera::testing {

std::string JoinParts(const Parts& parts) { return absl::StrJoin(parts, kPartSeparator); }

Parts SplitParts(std::string_view bytes) {
  const std::string_view separator = kPartSeparator;
  Parts parts;
  size_t end = 0;
  while (parts.size() + 1 < kMaxParts && (end = bytes.find(separator)) != std::string_view::npos) {
    parts.emplace_back(bytes.substr(0, end));
    bytes.remove_prefix(end + separator.size());
  }
  parts.emplace_back(bytes);
  return parts;
}

}  // namespace panthera::testing
