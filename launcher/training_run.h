#ifndef PANTHERA_LAUNCHER_TRAINING_RUN_H_
#define PANTHERA_LAUNCHER_TRAINING_RUN_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/background_save.h"
#include "launcher/config_changes.h"
#include "launcher/embedding_rows.h"
#include "launcher/run_options.h"
#include "launcher/run_state.h"
#include "launcher/trainer.h"
#include "launcher/watched_calls.h"
#include "launcher/weight_source.h"
#include "launcher/world.h"
#include "optim/skip_budget.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/run_lock.h"
#include "runtime/data/loader.h"
#include "runtime/data/tokenizer.h"
#include "runtime/metrics/step_metrics.h"

namespace panthera {

enum class StartMode : uint8_t {
  kResume,  // go on from the newest usable checkpoint in the run directory, if there is one
  kFresh,   // set aside what is in the run directory and begin at step 0
};

// A training run: a trainer, its directory on disk and its course in time. Every rank has one; rank
// 0 writes what is written once.
//
// RUN_DIR/
//   config.toml     the resolved configuration of the latest start
//   version.txt     the program that wrote it
//   metrics.jsonl   one line per step
//   gemm_algorithms.json  on GPUs: how products are computed
//   checkpoints/    what a resume needs; weights in the form that transformers reads
//   lock            held while a job works here
class TrainingRun {
 public:
  // Whether the process of a rank has been asked to save and stop. One that was is enough.
  using StopRequest = absl::FunctionRef<bool()>;
  static bool NeverAskedToStop() { return false; }

  // Opens the data and train.start_from, locks the directory, finds the newest checkpoint that is
  // whole and finite, allocates everything and loads or initialises the parameters. Collective;
  // every rank gets the same status. Changes nothing but for making the directory and its lock.
  // `options` must be finished for the world's size. Checkpoints and the like are on `disk`.
  static absl::StatusOr<std::unique_ptr<TrainingRun>> Open(
      const RunOptions& options, StartMode start, World& world,
      std::unique_ptr<FileSystem> disk = std::make_unique<PosixFileSystem>());

  // Sets an earlier run aside if it is to begin afresh, trains to the last step or until a rank is
  // asked to stop, and returns the process' exit code (exit_codes.h). `stop_requested` is asked
  // once after every step. A run that has come to its last step before changes nothing. A save goes
  // on beside the steps after it (BackgroundSave) and is complete when Run returns without an
  // error. Blocks on the peers. An error may be this rank's alone: the job must be ended.
  absl::StatusOr<int> Run(StopRequest stop_requested = NeverAskedToStop);

  Trainer& trainer() { return *trainer_; }

 private:
  TrainingRun(const RunOptions& options, StartMode start, World& world,
              std::unique_ptr<FileSystem> disk);

  absl::Status OpenData();
  // Sizes the arena, and refuses what this host or its GPU cannot hold.
  absl::Status PlanMemory();
  // Whether the workers of this host can have `bytes` of its memory each. `remedies` is what the
  // error tells the user to use.
  absl::Status FitsHost(int64_t bytes, const std::string& remedies) const;
  absl::Status FitsGpu(const StepPlan& plan) const;
  absl::Status LockDirectory();
  // Finds the newest usable checkpoint with a step below `before_step` and checks that it belongs
  // to this configuration. Collective.
  absl::Status FindResumePoint(int64_t before_step);
  absl::Status CheckResumePoint();
  absl::Status CheckUnchanged();
  // Whether the run may go on from a checkpoint, as far as names tell; the same on every rank.
  bool MayGoOn();
  // Opens train.start_from, if it is given and not open. Collective.
  absl::Status OpenStartingPoint();
  // Fresh weights, or those of train.start_from. Collective.
  absl::Status BeginAnew();
  // Loads the resume point, or an older one if its tensors turn out to be damaged.
  absl::Status LoadResumePoint();
  absl::Status CreateTrainer();
  // Begins to change the directory: sets an earlier run aside if asked to, and opens the logs.
  absl::Status OpenRecords();
  void LogStart() const;

  absl::StatusOr<StepMetrics> RunStep(int64_t step);
  // Bytes that this rank has sent so far, on both axes.
  int64_t BytesSent() const;
  // The sum over all ranks. May block on the peers.
  int64_t SumOverMesh(int64_t of_this_rank) const;
  // Adds what the input embedding looks like to `metrics` of rank 0, with the help of the
  // tensor-parallel ranks beside it.
  void LookAtEmbedding(StepMetrics& metrics);
  // Tells, once, that the embedding has outliers.
  void LogOutliers(const StepMetrics& metrics);
  bool EvaluationIsDue(int64_t steps_done) const;
  // Once after every step. A save that falls due in a step in which something was not finite waits
  // for the next good one; the last step's does not.
  bool SaveIsDue(int64_t steps_done);
  // Adds the loss on held-out data to `metrics`.
  absl::Status Evaluate(StepMetrics& metrics);
  // Tells, the first few times, of a step in which something was not finite.
  void LogNotFinite(int64_t step, const NonFiniteReport& report);
  void LogEndNotFinite(const std::string& reason) const;
  absl::Status Report(const StepMetrics& metrics);
  // Whether to look for flipped bits after this step: train.check_every, and a save that is due.
  bool CheckIsDue(int64_t steps_done, bool save_is_due) const;
  // Remembers what this rank's tensors hold after a step, so that HoldsItsBits finds what changes
  // after that.
  void RecordBits(int64_t steps_done);
  // False, with the reason in the log, if bits have flipped by themselves; the same on every rank.
  // True without a look if train.check_every is 0. Blocks on the peers, and on the disk before it
  // says false, so that the log can name the newest checkpoint.
  absl::StatusOr<bool> HoldsItsBits(int64_t steps_done);
  // `description` is what Describe says of them.
  void LogFlippedBits(int64_t step, const std::string& description) const;
  // Saves, or begins to: then what is written is a copy, and training may go on. Looks for flipped
  // bits and numbers that are not finite, with which nothing is saved. The exit code of a run that
  // must end for that; the same on every rank.
  absl::StatusOr<std::optional<int>> Save(int64_t steps_done);
  // What is left of a save when no copy is taken: blocks until all is written. False if bits have
  // flipped meanwhile.
  absl::StatusOr<bool> SaveAtOnce(std::vector<SmallFile> small_files, int64_t steps_done);
  // Ends the save that is under way, if there is one.
  absl::Status FinishSave(int64_t steps_done);
  int64_t saved_step() const;

  // What the ranks tell each other after a step.
  struct StepEnd {
    bool stop = false;     // a rank has been asked to
    bool writing = false;  // a rank is still writing a part of a save
  };
  // The same answer on every rank.
  StepEnd AgreeOnStepEnd(bool stop_requested_here);
  bool is_first() const { return world_.mesh.rank() == 0; }

  RunOptions options_;
  StartMode start_;
  World& world_;
  std::unique_ptr<FileSystem> disk_;
  WatchedFileSystem files_;
  std::optional<RunLock> lock_;
  std::optional<Checkpoint> resume_from_;
  std::optional<WeightSource> start_weights_;
  std::vector<std::string> skipped_;     // why newer checkpoints were not taken
  std::vector<std::string> unfinished_;  // newer saves that were cut short
  std::vector<ConfigChange> changed_;    // since `resume_from_` was saved
  std::optional<DataLoader> data_;
  DataRecord data_record_;                     // of rank 0
  std::optional<TokenClasses> token_classes_;  // of the training text or a sample, of rank 0
  std::optional<ValidationSet> validation_;
  std::unique_ptr<Tokenizer> tokenizer_;
  MemoryLedger ledger_;
  std::unique_ptr<Trainer> trainer_;
  std::vector<std::unique_ptr<MetricsSink>> sinks_;
  double model_flops_per_token_ = 0;
  double gemm_rate_ = 0;
  int64_t arena_bytes_ = 0;
  std::vector<Product> products_;
  std::string gemm_algorithms_;  // contents of the file; empty on CPUs
  int64_t first_step_ = 0;
  int64_t saved_step_ = -1;
  int64_t recorded_step_ = -1;  // of RecordBits
  bool save_due_ = false;
  SkipBudget skip_budget_;
  int nonfinite_lines_ = 0;
  bool outliers_told_ = false;
  // Destroyed first: it reads the trainer's memory.
  BackgroundSave background_save_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_TRAINING_RUN_H_
