#include "runtime/checkpoint/checksum.h"

#include <xxhash.h>

#include <charconv>

#include "absl/strings/str_format.h"

namespace panthera {

uint64_t Checksum(std::span<const std::byte> bytes) { return XXH64(bytes.data(), bytes.size(), 0); }

uint64_t Checksum(const std::string& bytes) { return XXH64(bytes.data(), bytes.size(), 0); }

std::string ChecksumText(uint64_t checksum) { return absl::StrFormat("%016x", checksum); }

absl::StatusOr<uint64_t> ParseChecksum(const std::string& text) {
  uint64_t checksum = 0;
  const char* end = text.data() + text.size();
  const std::from_chars_result result = std::from_chars(text.data(), end, checksum, 16);
  if (text.size() != 16 || result.ec != std::errc() || result.ptr != end) {
    return absl::DataLossError("\"" + text + "\" is not a checksum of 16 hexadecimal digits");
  }
  return checksum;
}

}  // namespace panthera
