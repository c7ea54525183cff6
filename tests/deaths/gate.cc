// Loaded into a program with LD_PRELOAD: when rank 0 opens a file whose path contains
// PANTHERA_GATE, the program stands still there until the test lets it go on. Two FIFOs in
// PANTHERA_GATE_DIR are the handshake: `reached` gets the process id, and whoever writes to `go`
// opens the gate. The gate is there once per process.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

using OpenFunction = int (*)(const char*, int, ...);

OpenFunction RealOpen() {
  static const auto real = reinterpret_cast<OpenFunction>(dlsym(RTLD_NEXT, "open"));
  return real;
}

bool IsRankZero() {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  return rank != nullptr && std::strcmp(rank, "0") == 0;
}

void PassGate(const char* path) {
  static bool passed = false;
  const char* gate = std::getenv("PANTHERA_GATE");
  if (passed || gate == nullptr || !IsRankZero() || std::strstr(path, gate) == nullptr) {
    return;
  }
  passed = true;
  const std::string directory = std::getenv("PANTHERA_GATE_DIR");
  const std::string self = std::to_string(getpid()) + "\n";
  const int reached = RealOpen()((directory + "/reached").c_str(), O_WRONLY | O_CLOEXEC);
  if (reached < 0 || write(reached, self.data(), self.size()) < 0) {
    std::abort();
  }
  close(reached);
  // Signals interrupt nothing here: their handlers run and the wait goes on.
  const int go = RealOpen()((directory + "/go").c_str(), O_RDONLY | O_CLOEXEC);
  char byte = 0;
  while (go >= 0 && read(go, &byte, 1) < 0) {
  }
  close(go);
}

int OpenThroughGate(const char* path, int flags, va_list arguments) {
  PassGate(path);
  const int mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, int) : 0;
  return RealOpen()(path, flags, mode);
}

}  // namespace

extern "C" int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int descriptor = OpenThroughGate(path, flags, arguments);
  va_end(arguments);
  return descriptor;
}

extern "C" int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int descriptor = OpenThroughGate(path, flags, arguments);
  va_end(arguments);
  return descriptor;
}
