#include "launcher/byte_size.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace panthera {

absl::StatusOr<int64_t> ParseByteSize(const std::string& text) {
  static constexpr std::pair<const char*, double> kUnits[] = {
      {"TiB", 0x1p40}, {"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}, {"B", 1}};
  constexpr double kLargest = 0x1p62;
  absl::string_view number = text;
  double unit = 1;
  for (const auto& [name, bytes] : kUnits) {
    if (absl::ConsumeSuffix(&number, name)) {
      unit = bytes;
      break;
    }
  }
  double value = 0;
  // Written so that "nan" fails.
  if (!absl::SimpleAtod(number, &value) || !(value * unit >= 1 && value * unit <= kLargest)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text,
                     "\" is no size: write one such as 80GiB, 512MiB or a number of "
                     "bytes"));
  }
  return static_cast<int64_t>(value * unit);
}

}  // namespace panthera
