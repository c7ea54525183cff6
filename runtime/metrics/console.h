// One aligned line per step for people who watch a log:
//
//   step  120/2000  loss  3.412  val  3.390  lr 1.20e-3  grad   0.84  18.2k tok/s  eta 1m20s
//
// Every value carries its name, so that any line cut out of a log can be read. What was not
// measured leaves its columns blank.
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

// Prints a line for the first step, every `interval` steps, every step with a validation loss and
// the last step. The time left comes from a running mean of the steps' times.
class ConsoleSink final : public MetricsSink {
 public:
  // `out` must outlive the sink.
  ConsoleSink(std::ostream& out, int64_t interval) : out_(out), interval_(interval) {}

  absl::Status Report(const StepMetrics& metrics) override;

 private:
  std::ostream& out_;
  int64_t interval_;
  int64_t num_reports_ = 0;
  double mean_step_seconds_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_METRICS_CONSOLE_H_
