#include "runtime/base/one_line.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"

namespace panthera {

std::string OneLine(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_iscntrl(byte)) {
      absl::StrAppendFormat(&line, "\\x%02X", byte);
    } else {
      line.push_back(c);
    }
  }
  return line;
}

}  // namespace panthera
