#ifndef PANTHERA_LAUNCHER_BYTE_SIZE_H_
#define PANTHERA_LAUNCHER_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace panthera {

// The bytes that a text such as "80GiB", "1.5 TiB" or "4096" means: a positive number, whole or
// with decimals, and a unit of B, KiB, MiB, GiB or TiB (none: bytes), rounded down to whole bytes.
// Refuses what is less than one byte, not finite or above 2^62 bytes, and other units.
absl::StatusOr<int64_t> ParseByteSize(const std::string& text);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_BYTE_SIZE_H_
