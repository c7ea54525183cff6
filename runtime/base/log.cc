#include "runtime/base/log.h"

#include <ctime>
#include <iomanip>
#include <iostream>

namespace panthera {
namespace {

// Not an argument because every line of every thread begins with it, those of CHECK included.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
thread_local int log_rank = -1;

const char* SeverityPrefix(LogSeverity severity) {
  switch (severity) {
    case LogSeverity::kINFO:
      return "";
    case LogSeverity::kWARNING:
      return "warning: ";
    case LogSeverity::kERROR:
      return "error: ";
  }
  return "";
}

}  // namespace

void SetLogRank(int rank) { log_rank = rank; }

namespace internal {

LogLine::~LogLine() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::ostringstream line;
  line << "[" << std::put_time(&local, "%H:%M:%S");
  if (log_rank >= 0) {
    line << " rank " << log_rank;
  }
  line << "] " << SeverityPrefix(severity_) << message_.str() << "\n";
  std::cerr << line.str() << std::flush;
}

}  // namespace internal
}  // namespace panthera
