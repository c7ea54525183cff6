#ifndef PANTHERA_LAUNCHER_RUN_RECORD_H_
#define PANTHERA_LAUNCHER_RUN_RECORD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/run_options.h"
#include "runtime/checkpoint/file.h"
#include "runtime/metrics/step_metrics.h"

namespace panthera {

// What a run left behind: its configuration and what its steps reported.
struct RunRecord {
  std::string name;    // the last part of its directory's path
  std::string group;   // the part before it; empty if there is none
  std::string parent;  // all of the path before the name
  RunOptions options;  // of the latest start, finished but for what depends on the ranks
  // Ascending; of a step that was done twice, after a crash, the later report. A loss that was not
  // finite is NaN.
  std::vector<StepMetrics> steps;
  // Lines of metrics.jsonl, but for a last one that is still being written, that are no step: the
  // file was damaged.
  int64_t damaged_lines = 0;
};

// Reads RUN_DIR/config.toml and RUN_DIR/metrics.jsonl; of the latter, what is no step is left out.
// Errors name the file; a run without a step is one.
absl::StatusOr<RunRecord> ReadRunRecord(FileSystem& files, const std::string& directory);

// The mean training loss of the last twentieth of the steps.
double FinalLoss(const RunRecord& run);
// Absent if it was never measured.
std::optional<double> FinalValidationLoss(const RunRecord& run);
// The last report that looked at the embedding; null if none did.
const StepMetrics* LastEmbeddingReport(const RunRecord& run);

// The largest RMS of a row whose token the text has, by report. A pair for each report that looked
// at the embedding.
struct RowGrowth {
  int64_t step = 0;
  double largest_rms = 0;
  // The sum of the learning rates of all steps up to this one.
  double summed_rate = 0;
};
std::vector<RowGrowth> LargestRows(const RunRecord& run);

// How fast the largest row grew, as a multiple of what Tiger does to a row all of whose components
// keep their signs (dr/dt = alpha r (1 - lambda r), whose logit grows by alpha a step): from the
// first report at which it is twice as large as at first to the last before it reaches 0.9 of
// 1 / lambda. Absent if there is no such span, and for other algorithms.
std::optional<double> GrowthAgainstTheLaw(const RunRecord& run);
// The RMS that the law gives from the first report on, one for each of LargestRows.
std::vector<double> RowLaw(const RunRecord& run);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_RUN_RECORD_H_
