#ifndef PANTHERA_LAUNCHER_RUN_DIRECTORY_H_
#define PANTHERA_LAUNCHER_RUN_DIRECTORY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/run_options.h"
#include "launcher/run_state.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/host_group.h"
#include "runtime/data/tokenizer.h"

namespace panthera {

// Moves everything in a run directory but its lock to RUN_DIR/set_aside_<n>, the first n that is
// free; the checkpoints go first, so that a call that is cut short leaves no half of a run to go on
// with. A directory that holds nothing to set aside stays as it is.
absl::Status SetRunAside(FileSystem& files, const std::string& run_dir);

// The configuration that a checkpoint was saved with. Model and optimizer options are finished; the
// batch is not looked at, for it may have been laid out for another number of ranks.
absl::StatusOr<RunOptions> ReadCheckpointOptions(FileSystem& files, const Checkpoint& checkpoint);

// The error of a run directory with checkpoints of which none can be used; `skipped` says of each
// why. The error gives one reason, so that it stays a line.
absl::Status NoUsableCheckpoint(const std::string& run_dir, const std::vector<std::string>& skipped,
                                const std::string& remedy);

// Compares what a run learns from with what a checkpoint of it says. The error names the run, the
// file that changed and what helps.
absl::Status CheckSameDataAs(FileSystem& files, const Checkpoint& checkpoint,
                             const DataRecord& data);

// A run's newest checkpoint that is whole and holds only finite numbers; none is an error that says
// why. Collective; every rank gets the same status.
absl::StatusOr<Checkpoint> SearchRun(FileSystem& files, HostGroup& host,
                                     const std::string& run_dir);

// The status of reading a checkpoint that was asked for. If it is damaged, says what to do instead.
absl::Status AdviseOnDamage(const absl::Status& status);

// A trained model on disk.
struct SavedModel {
  RunOptions options;
  Checkpoint checkpoint;
  std::unique_ptr<Tokenizer> tokenizer;  // null if the run had none
};

// Opens a run directory at its newest checkpoint that is whole and holds only finite numbers, or at
// `step`; or a checkpoint directory itself, which leaves no step to choose. Rank 0 decides which
// it is. Collective; every rank gets the same status.
absl::StatusOr<SavedModel> OpenSavedModel(FileSystem& files, HostGroup& host,
                                          const std::string& path, std::optional<int64_t> step);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_RUN_DIRECTORY_H_
