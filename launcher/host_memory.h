#ifndef PANTHERA_LAUNCHER_HOST_MEMORY_H_
#define PANTHERA_LAUNCHER_HOST_MEMORY_H_

#include <cstdint>
#include <optional>
#include <string>

namespace panthera {

// The bytes that new processes can use on this host without swapping: MemAvailable of
// /proc/meminfo, or less if a control group of this process or one above it allows less: its limit,
// minus its use, plus the file pages in that use, which the kernel gives up when asked. Versions 1
// and 2 of control groups (cgroups(7)), mounted at /sys/fs/cgroup. Nothing where the system does
// not tell. `root` stands before all these paths.
std::optional<int64_t> AvailableHostBytes(const std::string& root = "");

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_HOST_MEMORY_H_
