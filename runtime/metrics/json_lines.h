// RUN_DIR/metrics.jsonl: one JSON object per line and step, keys with units, in this order and as
// far as measured:
//
//   {"step":120,"tokens":15728640,"loss_nats":3.412,"validation_loss_nats":3.39,
//    "learning_rate":0.0012,"gradient_norm":0.84,"step_seconds":7.2,"tokens_per_second":18200.0,
//    "gemm_share":0.41,"bytes_sent":4096,"embedding_max":1.5,
//    "embedding_share":0.25,
//    "embedding_rows":[{"tokens_from":1,"rows":12,"rms":0.5,"largest_rms":1.25}]}
//
// A number that is not finite is null. A step in which something was not finite may also have
// "skipped":true or "masked_gradients":N, after the norm.
#ifndef PANTHERA_RUNTIME_METRICS_JSON_LINES_H_
#define PANTHERA_RUNTIME_METRICS_JSON_LINES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/metrics/step_metrics.h"

namespace panthera {

// The line, with its end of line.
std::string JsonLine(const StepMetrics& metrics);

// What of a metrics file stays when a run goes on after `last_step`: the whole lines that are JSON
// objects and whose "step", if they have one, is not later. A last line that a killed run left
// unfinished goes.
std::string KeepUpToStep(const std::string& contents, int64_t last_step);

// Appends to a file, each line with one write, so that a line is there whole or not at all for
// readers that follow the file. One rank has it.
class JsonLinesFile final : public MetricsSink {
 public:
  // Opens or creates the file and first drops what is later than `last_step` (0 for a new run), so
  // that a resumed run leaves no step twice.
  static absl::StatusOr<std::unique_ptr<JsonLinesFile>> Open(const std::string& path,
                                                             int64_t last_step);
  ~JsonLinesFile() override;

  absl::Status Report(const StepMetrics& metrics) override;

 private:
  JsonLinesFile(int descriptor, std::string path);

  int descriptor_;
  std::string path_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_METRICS_JSON_LINES_H_
