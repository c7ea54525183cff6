#include "launcher/training_run.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/exit_codes.h"
#include "launcher/training_checkpoint.h"
#include "model/cost.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/step_directories.h"
#include "runtime/comm/reduce.h"

namespace panthera {
namespace {

// Steps in which something was not finite have lines of their own in the log up to this many.
constexpr int kMostNonFiniteLines = 5;

// "the gradient of a is", "the gradients of a and 7 others are", or what else there is to name.
std::string WhatIsNotFinite(const ParameterStore& params, const NonFiniteReport& report) {
  if (report.tensors.empty()) {
    return "the loss or the gradient's norm is";
  }
  const std::string& name = params.spec(report.tensors.front()).name;
  const size_t others = report.tensors.size() - 1;
  return others == 0 ? absl::StrCat("the gradient of ", name, " is")
                     : absl::StrCat("the gradients of ", name, " and ", others,
                                    others == 1 ? " other are" : " others are");
}

// Why a step that was not finite is the last.
std::string WhatEndsTheRun(const OptimOptions& optim) {
  return optim.nonfinite == NonFinitePolicy::kStop
             ? "optim.nonfinite = \"stop\" ends the run here"
             : absl::StrCat("more than optim.skip_budget = ", optim.skip_budget, " of the latest ",
                            kSkipWindow, " steps were not finite");
}

// Components of the embedding above it in magnitude are outliers. Infinite without decay, where
// nothing bounds them.
double OutlierBound(const OptimOptions& optim) { return 0.5 / optim.ForTable().weight_decay; }

// Where the table's learning rate and decay are set.
const char* TablePrefix(const OptimOptions& optim) {
  return optim.table.optimizer == TableOptimizer::kSame ? "optim." : "optim.table_";
}

std::string OutlierRemedy(const ModelOptions& model, const OptimOptions& optim) {
  const bool goes_by_sign = optim.ForTable().algorithm != Algorithm::kAdamW;
  const char* prefix = TablePrefix(optim);
  return goes_by_sign && model.tie == Tie::kNone && optim.lazy_rows == LazyRows::kOff
             ? "optim.lazy_rows = \"change\" leaves rows alone that were not seen"
             : absl::StrCat("a smaller ", prefix, "learning_rate slows their growth, a larger ",
                            prefix, "weight_decay bounds it");
}

}  // namespace

TrainingRun::TrainingRun(const RunOptions& options, StartMode start, World& world,
                         std::unique_ptr<FileSystem> disk)
    : options_(options),
      start_(start),
      world_(world),
      disk_(std::move(disk)),
      files_(*disk_, world.progress),
      model_flops_per_token_(CountFlops(options.model).model()),
      skip_budget_(options.optim.nonfinite == NonFinitePolicy::kStop ? 0
                                                                     : options.optim.skip_budget),
      background_save_(*disk_, world) {}

absl::StatusOr<int> TrainingRun::Run(StopRequest stop_requested) {
  if (first_step_ == options_.train.steps) {
    if (is_first()) {
      LOG(INFO) << options_.train.run_dir << ": all " << first_step_
                << " steps are done; nothing is left to do. A larger train.steps goes on";
    }
    return kExitDone;
  }
  RETURN_IF_ERROR(Agree(*world_.host, OpenRecords()));
  for (int64_t done = first_step_ + 1; done <= options_.train.steps; ++done) {
    ASSIGN_OR_RETURN(StepMetrics metrics, RunStep(done - 1));
    if (skip_budget_.exceeded()) {
      RETURN_IF_ERROR(Report(metrics));
      RETURN_IF_ERROR(FinishSave(done));
      LogEndNotFinite(absl::StrCat("step ", done, ": ", WhatEndsTheRun(options_.optim)));
      return kExitNotFinite;
    }
    const bool save_is_due = SaveIsDue(done);
    const bool check_is_due = CheckIsDue(done, save_is_due);
    if (check_is_due) {
      RecordBits(done);
    }
    if (EvaluationIsDue(done)) {
      RETURN_IF_ERROR(Evaluate(metrics));
    }
    RETURN_IF_ERROR(Report(metrics));
    const StepEnd end = AgreeOnStepEnd(stop_requested());
    if (background_save_.is_under_way() && !end.writing) {
      world_.Enter(Phase::kSaving, done);
      RETURN_IF_ERROR(background_save_.Advance());
    }
    if (end.stop || save_is_due) {
      ASSIGN_OR_RETURN(const std::optional<int> exit_code, Save(done));
      if (exit_code.has_value()) {
        return *exit_code;
      }
    } else if (check_is_due) {
      ASSIGN_OR_RETURN(const bool holds, HoldsItsBits(done));
      if (!holds) {
        return kExitFlippedBits;
      }
    }
    if (end.stop && done < options_.train.steps) {
      RETURN_IF_ERROR(FinishSave(done));
      if (is_first()) {
        LOG(INFO) << "asked to stop: saved after step " << done
                  << "; the same command goes on from there";
      }
      return kExitStoppedBySignal;
    }
  }
  RETURN_IF_ERROR(FinishSave(options_.train.steps));
  if (is_first()) {
    LOG(INFO) << options_.train.steps << " steps done; results are in " << options_.train.run_dir;
  }
  return kExitDone;
}

absl::StatusOr<StepMetrics> TrainingRun::RunStep(int64_t step) {
  using Clock = std::chrono::steady_clock;
  const int64_t bytes_before = BytesSent();
  const Clock::time_point begin = Clock::now();
  world_.Enter(Phase::kStep, step + 1);
  ASSIGN_OR_RETURN(const StepResult result, trainer_->TrainStep(step, &*data_));
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();

  const int64_t done = step + 1;
  const NonFiniteReport& nonfinite = result.nonfinite;
  skip_budget_.Record(nonfinite.found);
  if (nonfinite.found) {
    LogNotFinite(done, nonfinite);
  }
  StepMetrics metrics;
  metrics.step = done;
  metrics.total_steps = options_.train.steps;
  metrics.tokens = done * trainer_->tokens_per_step();
  metrics.loss_nats = result.loss_nats;
  metrics.learning_rate = result.learning_rate;
  metrics.gradient_norm = result.gradient_norm;
  metrics.skipped = nonfinite.skipped;
  metrics.masked_gradients = nonfinite.masked_gradients;
  metrics.step_seconds = seconds;
  metrics.tokens_per_second = static_cast<double>(trainer_->tokens_per_step()) / seconds;
  metrics.gemm_share = metrics.tokens_per_second * model_flops_per_token_ / gemm_rate_;
  metrics.bytes_sent = SumOverMesh(BytesSent() - bytes_before);
  // Its rows lie on the tensor-parallel ranks.
  if (world_.mesh.data_rank == 0 && done % options_.log.every == 0) {
    LookAtEmbedding(metrics);
  }
  return metrics;
}

int64_t TrainingRun::BytesSent() const {
  return world_.data_parallel->bytes_sent() + world_.tensor_parallel->bytes_sent();
}

int64_t TrainingRun::SumOverMesh(int64_t of_this_rank) const {
  auto sum = static_cast<double>(of_this_rank);
  // Data-parallel ranks have equally long shards, tensor-parallel ones need not.
  if (world_.mesh.tensor_size > 1) {
    Stream host{Device{}};
    AllReduceSum(world_.host_tensor_parallel(), {&sum, 1}, host);
  }
  return static_cast<int64_t>(sum) * world_.mesh.data_size;
}

void TrainingRun::LookAtEmbedding(StepMetrics& metrics) {
  const double bound = OutlierBound(options_.optim);
  const EmbeddingMeasures measures =
      MeasureEmbedding(trainer_->instance(), bound, world_.host_tensor_parallel());
  if (!is_first()) {
    return;
  }
  AddTo(metrics, measures, options_.model.width, *token_classes_);
  if (*metrics.embedding_max > bound) {
    LogOutliers(metrics);
  }
}

void TrainingRun::LogOutliers(const StepMetrics& metrics) {
  if (outliers_told_) {
    return;
  }
  outliers_told_ = true;
  const OptimOptions& optim = options_.optim;
  LOG(WARNING) << "step " << metrics.step << ": the largest component of the embedding is "
               << absl::StrFormat(
                      "%.3g, above half of 1 / %sweight_decay = %.3g, where rows "
                      "of rare tokens end that are pushed without being seen",
                      *metrics.embedding_max, TablePrefix(optim), 1 / optim.ForTable().weight_decay)
               << "; " << OutlierRemedy(options_.model, optim)
               << ". Later steps are in metrics.jsonl only";
}

bool TrainingRun::EvaluationIsDue(int64_t steps_done) const {
  const int64_t every = options_.eval.every;
  return every > 0 && (steps_done % every == 0 || steps_done == options_.train.steps);
}

bool TrainingRun::SaveIsDue(int64_t steps_done) {
  const int64_t every = options_.checkpoint.every;
  save_due_ = save_due_ || (every > 0 && steps_done % every == 0);
  // Weights that have diverged may still be finite, and nothing but finite gradients tells them
  // from good ones: they must not push the good ones out of the run directory.
  const bool waits = skip_budget_.latest_was_nonfinite();
  return (save_due_ && !waits) || steps_done == options_.train.steps;
}

absl::Status TrainingRun::Evaluate(StepMetrics& metrics) {
  world_.Enter(Phase::kEvaluating, metrics.step);
  ASSIGN_OR_RETURN(const Evaluation evaluation,
                   trainer_->Evaluate(&*validation_, validation_->size()));
  metrics.validation_loss_nats = evaluation.MeanLoss();
  return absl::OkStatus();
}

void TrainingRun::LogNotFinite(int64_t step, const NonFiniteReport& report) {
  if (!is_first() || ++nonfinite_lines_ > kMostNonFiniteLines) {
    return;
  }
  std::string consequence = "nothing was left out";
  if (report.skipped) {
    consequence = "the step was skipped";
  } else if (report.masked_gradients > 0) {
    consequence = absl::StrCat("masked ", report.masked_gradients, " micro-gradients");
  }
  LOG(WARNING) << "step " << step << ": " << WhatIsNotFinite(trainer_->instance().params(), report)
               << " not finite; " << consequence << " (" << skip_budget_.nonfinite_steps()
               << " of the latest " << kSkipWindow << " steps so far)"
               << (nonfinite_lines_ == kMostNonFiniteLines
                       ? "; later ones are in metrics.jsonl only"
                       : "");
}

void TrainingRun::LogEndNotFinite(const std::string& reason) const {
  if (is_first()) {
    LOG(ERROR) << reason << "; "
               << (saved_step() < 0 ? "nothing has been saved yet"
                                    : absl::StrCat("the last checkpoint is of step ", saved_step()))
               << ". Lower optim.learning_rate and start again";
  }
}

bool TrainingRun::CheckIsDue(int64_t steps_done, bool save_is_due) const {
  const int64_t every = options_.train.check_every;
  return every > 0 && (save_is_due || steps_done % every == 0);
}

void TrainingRun::RecordBits(int64_t steps_done) {
  world_.Enter(Phase::kChecking, steps_done);
  trainer_->replica_check()->Record();
  recorded_step_ = steps_done;
}

absl::StatusOr<bool> TrainingRun::HoldsItsBits(int64_t steps_done) {
  if (trainer_->replica_check() == nullptr) {
    return true;
  }
  if (recorded_step_ != steps_done) {
    // A stop was asked for after a step that was not to be checked: replicas are compared.
    RecordBits(steps_done);
  }
  world_.Enter(Phase::kChecking, steps_done);
  const std::vector<FlippedBits> found = trainer_->replica_check()->Find();
  std::string description = found.empty() ? "" : Describe(trainer_->instance().params(), found);
  if (world_.mesh.tensor_size > 1) {
    const std::vector<std::string> all = world_.host->AllGather(description);
    const auto first =
        std::find_if(all.begin(), all.end(), [](const std::string& its) { return !its.empty(); });
    description = first == all.end() ? "" : *first;
  }
  if (!description.empty()) {
    RETURN_IF_ERROR(FinishSave(steps_done));
    LogFlippedBits(steps_done, description);
  }
  return description.empty();
}

void TrainingRun::LogFlippedBits(int64_t step, const std::string& description) const {
  if (!is_first()) {
    return;
  }
  std::string advice = "nothing was saved, and the same command begins anew";
  if (saved_step() == step) {
    advice = absl::StrCat(
        "the checkpoint of this step was written meanwhile and may hold them: remove ",
        CheckpointDirectory(options_.train.run_dir, step), ", then the same command goes on");
  } else if (saved_step() >= 0) {
    advice = absl::StrCat(
        "nothing was saved from this, and the same command goes on from the newest checkpoint, of "
        "step ",
        saved_step());
  }
  LOG(ERROR) << "step " << step << ": bits have flipped by themselves: " << description << "; "
             << advice << ". Where a rank is named again, replace its hardware";
}

absl::Status TrainingRun::Report(const StepMetrics& metrics) {
  for (const std::unique_ptr<MetricsSink>& sink : sinks_) {
    RETURN_IF_ERROR(sink->Report(metrics));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int>> TrainingRun::Save(int64_t steps_done) {
  // What is written of it lies where the next copy goes.
  RETURN_IF_ERROR(FinishSave(steps_done));
  world_.Enter(Phase::kSaving, steps_done);
  ASSIGN_OR_RETURN(
      std::vector<SmallFile> small_files,
      CheckpointSmallFiles(options_, tokenizer_.get(),
                           StateAfter(options_, world_.mesh, data_record_, steps_done)));
  std::optional<CheckpointContents> copy;
  if (trainer_->staging() != nullptr) {
    copy = CopyTraining(world_, *trainer_, options_, steps_done);
  }
  // After the copy, so that it finds what has flipped before that too.
  ASSIGN_OR_RETURN(const bool held, HoldsItsBits(steps_done));
  if (!held) {
    return kExitFlippedBits;
  }
  world_.Enter(Phase::kSaving, steps_done);
  if (!trainer_->HoldsOnlyFiniteNumbers()) {
    LogEndNotFinite(absl::StrCat("step ", steps_done,
                                 ": weights or optimizer state are not finite, so they were not "
                                 "saved"));
    return kExitNotFinite;
  }
  save_due_ = false;
  if (copy.has_value()) {
    copy->small_files = std::move(small_files);
    RETURN_IF_ERROR(background_save_.Begin(options_.train.run_dir, *std::move(copy),
                                           RetentionOf(options_.checkpoint)));
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(const bool holds, SaveAtOnce(std::move(small_files), steps_done));
  return holds ? std::nullopt : std::optional(kExitFlippedBits);
}

absl::StatusOr<bool> TrainingRun::SaveAtOnce(std::vector<SmallFile> small_files,
                                             int64_t steps_done) {
  RETURN_IF_ERROR(
      SaveTraining(files_, world_, *trainer_, options_, std::move(small_files), steps_done));
  saved_step_ = steps_done;
  // What has changed meanwhile may have been written.
  return HoldsItsBits(steps_done);
}

absl::Status TrainingRun::FinishSave(int64_t steps_done) {
  world_.Enter(Phase::kSaving, steps_done);
  return background_save_.Finish();
}

int64_t TrainingRun::saved_step() const {
  return std::max(saved_step_, background_save_.saved_step());
}

TrainingRun::StepEnd TrainingRun::AgreeOnStepEnd(bool stop_requested_here) {
  std::array<uint8_t, 2> flags = {stop_requested_here ? uint8_t{1} : uint8_t{0},
                                  background_save_.is_working() ? uint8_t{1} : uint8_t{0}};
  Stream host{Device{}};
  AllReduceOr(world_.host_axes(), flags, host);
  return {.stop = flags[0] != 0, .writing = flags[1] != 0};
}

}  // namespace panthera
