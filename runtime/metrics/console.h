// One aligned line per step for people who watch a log:
//
//   step  120/2000  loss  3.412  val  3.390  lr 1.20e-3  grad   0.84  18.2k tok/s  eta 1m20s
//
// Every value carries its name, so that any line cut out of a log can be read. What was not
// measured leaves its columns blank. A step of which something was left out because it was not
// finite has "skipped" or "masked N" at its end.
#ifndef PANTHERA_RUNTIME_METRICS_CONSOLE_H_
#define PANTHERA_RUNTIME_METRICS_CONSOLE_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"

#include "runtime/metrics/step_metrics.h"

namespace panthera {

// "950", "18.2k", "1.25M", "3.40G": three significant digits and a decimal unit.
std::string FormatCount(double count);
// "45s", "1m20s", "2h05m", "3d04h".
std::string FormatDuration(double seconds);
// "1.20e-3".
std::string FormatRate(double rate);

// The line, without end of line. `seconds_left` below 0: not known.
std::string ConsoleLine(const StepMetrics& metrics, double seconds_left);

// Prints a line for the first step, every `interval` steps, every step with a validation loss,
// every one of which something was left out, and the last step. The time left comes from a running
// mean of the steps' times.
class ConsoleSink final : public MetricsSink {
 public:
  // What is behind `out`, where it is known.
  static constexpr int kNoDescriptor = -1;

  // `out` must outlive the sink. With its file descriptor, a line that cannot be written within a
  // quarter of a second is left out: a terminal that is held, or a launcher that has stopped
  // reading, must not keep the run from going on, and from saving when it is asked to stop.
  ConsoleSink(std::ostream& out, int64_t interval, int descriptor = kNoDescriptor)
      : out_(out), interval_(interval), descriptor_(descriptor) {}

  absl::Status Report(const StepMetrics& metrics) override;

 private:
  bool CanWrite() const;

  std::ostream& out_;
  int64_t interval_;
  int descriptor_;
  int64_t num_reports_ = 0;
  double mean_step_seconds_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_METRICS_CONSOLE_H_
