#ifndef PANTHERA_LAUNCHER_HOST_MEMORY_H_
#define PANTHERA_LAUNCHER_HOST_MEMORY_H_

#include <cstdint>
#include <optional>

namespace panthera {

// The bytes that new processes can use on this host without swapping (MemAvailable of
// /proc/meminfo); nothing where the system does not tell.
std::optional<int64_t> AvailableHostBytes();

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_HOST_MEMORY_H_
