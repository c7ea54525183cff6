#include "launcher/host_memory.h"

#include <fstream>
#include <string>

namespace panthera {

std::optional<int64_t> AvailableHostBytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  std::string unit;
  while (meminfo >> key >> kibibytes) {
    if (key == "MemAvailable:") {
      return kibibytes * 1024;
    }
    std::getline(meminfo, unit);
  }
  return std::nullopt;
}

}  // namespace panthera
