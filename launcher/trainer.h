#ifndef PANTHERA_LAUNCHER_TRAINER_H_
#define PANTHERA_LAUNCHER_TRAINER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/batch_feed.h"
#include "launcher/evaluation.h"
#include "launcher/model_instance.h"
#include "launcher/run_options.h"
#include "launcher/save_staging.h"
#include "launcher/world.h"
#include "optim/grad_sync.h"
#include "optim/optimizer.h"
#include "optim/replica_check.h"
#include "optim/seen_rows.h"
#include "runtime/data/loader.h"

namespace panthera {

// What one optimizer step did; the same on every rank.
struct StepResult : StepReport {
  double learning_rate = 0;  // of everything that has no rate of its own
};

// Bytes that went to ranks of each axis of the mesh.
struct AxisBytes {
  int64_t data = 0;
  int64_t tensor = 0;

  int64_t sum() const { return data + tensor; }
};

// What training needs - a step, an evaluation, a checkpoint - found by running each on kMeta.
struct StepPlan {
  // Everything but the arena.
  MemoryLedger memory;
  int64_t arena_bytes = 0;
  // What is in the arena when it is fullest.
  std::vector<Arena::Allocation> arena_peak;
  // On a GPU, one of each form.
  std::vector<Product> products;
  // Sent to other ranks by this one in one optimizer step.
  AxisBytes sent;

  int64_t total_bytes() const { return memory.total_bytes() + arena_bytes; }
};

// One rank's share of training: everything in memory, and the step. What happens between steps
// (logs, checkpoints, signals) is TrainingRun's.
class Trainer {
 public:
  // Allocates everything on the context's device. `options` must be finished for the world's size;
  // all references must outlive the trainer.
  Trainer(const RunOptions& options, World& world, std::unique_ptr<Context> context);

  // What training, evaluation and checkpoints with these options need on `target`, in a process
  // with as many threads as this one: on a CPU every thread has scratch. Computes nothing.
  // `plan_world` is from PlanWorld.
  static StepPlan Plan(const RunOptions& options, World& plan_world, Device target);

  // Fresh parameters: the same for every mesh.
  void InitializeParameters();

  // Optimizer step `step`, counted from 0, on the samples that belong to it; one that is left out
  // (OptimOptions::nonfinite) uses up its samples and its place in the schedule. Blocks on the
  // peers. An error is this rank's alone: its peers wait for it in vain and must be ended.
  absl::StatusOr<StepResult> TrainStep(int64_t step, const DataLoader* data);
  // The loss on the first `sequences` of `set`. Blocks on the peers.
  absl::StatusOr<Evaluation> Evaluate(const ValidationSet* set, int64_t sequences);

  // Whether all weights and optimizer state, of all ranks, are finite. Blocks on the peers.
  bool HoldsOnlyFiniteNumbers();

  // The check that TrainOptions::check_every asks for; null if it is 0.
  ReplicaCheck* replica_check() { return replica_check_.has_value() ? &*replica_check_ : nullptr; }

  // Memory for copies that checkpoints are written from; null if checkpoint.staging wants none.
  const SaveStaging* staging() const { return staging_.has_value() ? &*staging_ : nullptr; }

  int64_t tokens_per_step() const;
  ModelInstance& instance() { return instance_; }
  const Optimizer& optimizer() const { return *optimizer_; }

 private:
  // Micro-batch `micro` of this rank in step `step`: sequences [first, first + micro_batch) of the
  // global order, first = step * global_batch + (micro * data ranks + data rank) * micro_batch.
  absl::StatusOr<Batch> LoadBatch(int64_t step, int64_t micro, const DataLoader* data);
  double LearningRate(double peak, int64_t step) const;

  RunOptions options_;
  World& world_;
  int64_t micro_steps_;
  ModelInstance instance_;
  std::unique_ptr<Optimizer> optimizer_;
  GradSync gradients_;
  SeenRows seen_rows_;
  std::optional<ReplicaCheck> replica_check_;
  std::optional<SaveStaging> staging_;
  Evaluator evaluator_;
  BatchFeed batches_;
  Buffer loss_sum_;  // [1] f64, of this rank's targets in the step
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_TRAINER_H_
