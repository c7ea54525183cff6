#include "tests/simt/emulator/launch_log.h"

#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <set>

namespace simt {
namespace {

// By how much the program's addresses differ from those in its file.
uintptr_t LoadAddress() {
  uintptr_t address = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        *static_cast<uintptr_t*>(result) = info->dlpi_addr;
        return 1;  // the first object is the program
      },
      &address);
  return address;
}

}  // namespace

void LogLaunch(const void* kernel) {
  static const char* const path = std::getenv("PANTHERA_SIMT_LAUNCH_LOG");
  if (path == nullptr) {
    return;
  }
  static std::mutex mutex;
  static std::set<const void*> logged;
  const std::lock_guard<std::mutex> lock(mutex);
  if (logged.insert(kernel).second) {
    std::ofstream(path, std::ios::app)
        << std::hex << reinterpret_cast<uintptr_t>(kernel) - LoadAddress() << "\n";
  }
}

}  // namespace simt
