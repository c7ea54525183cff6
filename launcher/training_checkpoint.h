#ifndef PANTHERA_LAUNCHER_TRAINING_CHECKPOINT_H_
#define PANTHERA_LAUNCHER_TRAINING_CHECKPOINT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/model_instance.h"
#include "launcher/run_options.h"
#include "launcher/run_state.h"
#include "launcher/save_staging.h"
#include "launcher/trainer.h"
#include "launcher/world.h"
#include "optim/optimizer.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/tokenizer.h"

namespace panthera {

// The name, in every checkpoint, of the configuration that the run was resolved to.
inline constexpr char kCheckpointConfigName[] = "run.toml";
// The name, in every checkpoint, of where the run stands: run_state.h.
inline constexpr char kCheckpointStateName[] = "state.json";
// The name, in every checkpoint of a run with a SentencePiece tokenizer, of its model.
inline constexpr char kCheckpointTokenizerName[] = "tokenizer.model";

// The files beside the tensors: the configuration that a resume checks (run.toml), where the run
// stands and what it learned from (state.json, run_state.h), and what lets transformers open the
// directory (config.json, the tokenizer's files). `tokenizer` may be null.
absl::StatusOr<std::vector<SmallFile>> CheckpointSmallFiles(const RunOptions& options,
                                                            const Tokenizer* tokenizer,
                                                            const RunState& state);

// Saves everything that the next step depends on, after `step` optimizer steps. Collective; every
// rank gets the same status. Blocks on the disk and the peers. What a save needs in memory it takes
// from the arena, which must be empty.
absl::Status SaveTraining(FileSystem& files, World& world, Trainer& trainer,
                          const RunOptions& options, std::vector<SmallFile> small_files,
                          int64_t step);

// What SaveTraining would save, but for the small files, in trainer.staging(), which must be there:
// valid whatever becomes of the trainer's tensors, until the next call. Local; blocks until all is
// copied. The arena must be empty here too.
CheckpointContents CopyTraining(const World& world, Trainer& trainer, const RunOptions& options,
                                int64_t step);

// What CheckpointOptions wants to be kept.
RetentionOptions RetentionOf(const CheckpointOptions& options);

// The memory that CopyTraining needs; nothing if checkpoint.staging wants none.
std::optional<SaveStaging> AllocateStaging(const RunOptions& options, ModelInstance& instance,
                                           const Optimizer& optimizer);

// Allocates in the arena, and gives back, what a save of this instance would take: on kMeta, to
// measure it.
void PlanSave(const RunOptions& options, ModelInstance& instance);

// The inverse of SaveTraining, on any mesh and with any storage of weights and state
// (precision_change.h): parameters on every rank and optimizer state. Collective.
absl::Status LoadTraining(FileSystem& files, World& world, Trainer& trainer,
                          const Checkpoint& checkpoint);

// The parameters alone, for evaluation and generation. Collective.
absl::Status LoadParameters(FileSystem& files, HostGroup& host, Communicator& data_parallel,
                            ModelInstance& instance, const Checkpoint& checkpoint);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_TRAINING_CHECKPOINT_H_
