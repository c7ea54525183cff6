#ifndef PANTHERA_RUNTIME_CHECKPOINT_CHECKSUM_H_
#define PANTHERA_RUNTIME_CHECKPOINT_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace panthera {

// XXH64 with seed 0 (xxHash specification, https://github.com/Cyan4973/xxHash): detects damage, not
// malice.
uint64_t Checksum(std::span<const std::byte> bytes);
uint64_t Checksum(const std::string& bytes);

// Sixteen lower-case hexadecimal digits, the form in which checksums stand in files, and back.
std::string ChecksumText(uint64_t checksum);
absl::StatusOr<uint64_t> ParseChecksum(const std::string& text);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_CHECKSUM_H_
