// The directories under RUN_DIR/checkpoints: their names, publishing a new one, clearing old ones
// away. Only one process of a run calls these functions at a time.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_STEP_DIRECTORIES_H_
#define PANTHERA_RUNTIME_CHECKPOINT_STEP_DIRECTORIES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/retention.h"

namespace panthera {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kTemporaryEnding[] = ".tmp";      // being written
inline constexpr char kReplacedEnding[] = ".replaced";  // an earlier save of the same step
inline constexpr char kDeletedEnding[] = ".deleted";    // being removed

std::string CheckpointsDirectory(const std::string& run_directory);
// "step_00001000"; more digits where a step needs them.
std::string StepName(int64_t step);

struct StepDirectory {
  int64_t step = 0;
  std::string ending;  // "" or one of the above

  std::string name() const { return StepName(step) + ending; }
};
std::optional<StepDirectory> ParseStepDirectory(const std::string& name);

// All step directories, newest first; of one step the one without an ending first. Empty if the
// run has no checkpoints yet.
absl::StatusOr<std::vector<StepDirectory>> ListStepDirectories(FileSystem& files,
                                                               const std::string& run_directory);

// Removes what a killed program left behind, and says so.
absl::Status ClearLeftovers(FileSystem& files, const std::string& run_directory);

// Gives the finished step_<n>.tmp its final name, for good. An earlier save of the same step stays
// valid until then.
absl::Status PublishStep(FileSystem& files, const std::string& run_directory, int64_t step);

// Removes the checkpoints up to `newest_step` that `options` no longer keeps. Those of another
// format version stay and do not count.
absl::Status RotateCheckpoints(FileSystem& files, const std::string& run_directory,
                               int64_t newest_step, const RetentionOptions& options);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_STEP_DIRECTORIES_H_
