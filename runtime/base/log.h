// LOG(INFO|WARNING|ERROR) << ...: one line on standard error with time and rank. The macro name is
// Abseil's (absl/log/log.h), which the distribution's Abseil does not have yet.
#ifndef PANTHERA_RUNTIME_BASE_LOG_H_
#define PANTHERA_RUNTIME_BASE_LOG_H_

#include <sstream>

namespace panthera {

enum class LogSeverity { kINFO, kWARNING, kERROR };

// Names the calling thread's lines with the worker's rank. Ranks may be threads of one process, so
// the name belongs to the thread; threads that never call this print no rank.
void SetLogRank(int rank);

namespace internal {

class LogLine {
 public:
  explicit LogLine(LogSeverity severity) : severity_(severity) {}
  LogLine(const LogLine&) = delete;
  LogLine& operator=(const LogLine&) = delete;
  ~LogLine();

  std::ostream& stream() { return message_; }

 private:
  LogSeverity severity_;
  std::ostringstream message_;
};

}  // namespace internal
}  // namespace panthera

#define LOG(severity) ::panthera::internal::LogLine(::panthera::LogSeverity::k##severity).stream()

#endif  // PANTHERA_RUNTIME_BASE_LOG_H_
