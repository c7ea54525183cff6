// How a run begins: from its options to everything in memory and its records open.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "launcher/config_changes.h"
#include "launcher/config_file.h"
#include "launcher/config_text.h"
#include "launcher/gemm_algorithm_file.h"
#include "launcher/gemm_rate.h"
#include "launcher/host_memory.h"
#include "launcher/run_directory.h"
#include "launcher/start_weights.h"
#include "launcher/training_checkpoint.h"
#include "launcher/training_run.h"
#include "launcher/version.h"
#include "runtime/base/log.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/step_directories.h"
#include "runtime/device/cuda_device.h"
#include "runtime/metrics/console.h"
#include "runtime/metrics/json_lines.h"

namespace panthera {
namespace {

// Up to this many ids are read before the run begins: a second or two.
constexpr int64_t kMostCheckedTokens = 2'000'000'000;
// And about this many at most are counted on rank 0 to tell rare tokens from others: 0.4 GB or less
// to read, however large the text.
constexpr int64_t kMostCountedTokens = 100'000'000;

// `Data` is DataLoader or ValidationSet.
template <typename Data>
absl::Status CheckVocabulary(const Data& data, const std::string& key) {
  if (data.tokens() <= kMostCheckedTokens) {
    return data.CheckVocabulary();
  }
  LOG(INFO) << key << " has " << FormatCount(static_cast<double>(data.tokens()))
            << " tokens, too many to read before the run; an id outside the vocabulary will show "
            << "when its sample is used";
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrainingRun>> TrainingRun::Open(const RunOptions& options,
                                                               StartMode start, World& world,
                                                               std::unique_ptr<FileSystem> disk) {
  std::unique_ptr<TrainingRun> run(new TrainingRun(options, start, world, std::move(disk)));
  world.Enter(Phase::kOpeningData);
  RETURN_IF_ERROR(Agree(*world.host, run->OpenData()));
  world.Enter(Phase::kStartingUp);
  RETURN_IF_ERROR(Agree(*world.host, run->PlanMemory()));
  // Before anything is changed, if they will be needed.
  if (!run->MayGoOn()) {
    RETURN_IF_ERROR(run->OpenStartingPoint());
  }
  RETURN_IF_ERROR(Agree(*world.host, run->LockDirectory()));
  if (start == StartMode::kResume) {
    RETURN_IF_ERROR(run->FindResumePoint(std::numeric_limits<int64_t>::max()));
  }
  world.Enter(Phase::kLoading);
  RETURN_IF_ERROR(run->CreateTrainer());
  return run;
}

absl::Status TrainingRun::OpenData() {
  const SampleFormat format{.sequence_length = options_.model.sequence_length,
                            .vocab_size = options_.model.vocab_size};
  ASSIGN_OR_RETURN(data_, DataLoader::Open(options_.data.train, format, options_.data.seed));
  if (options_.eval.every > 0) {
    ASSIGN_OR_RETURN(validation_, ValidationSet::Open(options_.data.validation, format,
                                                      options_.eval.sequences));
  }
  if (!options_.data.tokenizer.empty()) {
    ASSIGN_OR_RETURN(tokenizer_, OpenTokenizer(options_.data.tokenizer));
    if (tokenizer_->vocab_size() > options_.model.vocab_size) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "the tokenizer %s has %d tokens but model.vocab_size = %d; set model.vocab_size to at "
          "least %d",
          options_.data.tokenizer, tokenizer_->vocab_size(), options_.model.vocab_size,
          tokenizer_->vocab_size()));
    }
  }
  if (!is_first()) {
    return absl::OkStatus();
  }
  data_record_ = DescribeData(*data_, tokenizer_.get());
  RETURN_IF_ERROR(CheckVocabulary(*data_, "data.train"));
  if (data_->tokens() > kMostCountedTokens) {
    LOG(INFO)
        << "how rare a token is, in embedding_rows of metrics.jsonl, is judged by a sample of "
        << FormatCount(static_cast<double>(kMostCountedTokens)) << " tokens of data.train";
  }
  token_classes_.emplace(data_->CountIds(kMostCountedTokens));
  return validation_.has_value() ? CheckVocabulary(*validation_, "data.validation")
                                 : absl::OkStatus();
}

absl::Status TrainingRun::LockDirectory() {
  if (!is_first()) {
    return absl::OkStatus();
  }
  const std::string& directory = options_.train.run_dir;
  if (const absl::Status made = files_.MakeDirectories(directory); !made.ok()) {
    return {made.code(), absl::StrCat("train.run_dir: ", made.message())};
  }
  ASSIGN_OR_RETURN(lock_, RunLock::Acquire(directory, LockHolder::ThisProcess()));
  return absl::OkStatus();
}

absl::Status TrainingRun::FindResumePoint(int64_t before_step) {
  ASSIGN_OR_RETURN(FoundCheckpoint found,
                   FindNewest(files_, *world_.host, options_.train.run_dir, before_step));
  skipped_.insert(skipped_.end(), found.skipped.begin(), found.skipped.end());
  // A second search finds the same and more.
  unfinished_ = std::move(found.unfinished);
  resume_from_ = std::move(found.checkpoint);
  if (resume_from_.has_value()) {
    first_step_ = resume_from_->step();
    saved_step_ = first_step_;
    return Agree(*world_.host, CheckResumePoint());
  }
  return skipped_.empty()
             ? absl::OkStatus()
             : NoUsableCheckpoint(
                   options_.train.run_dir, skipped_,
                   "restore one of them, or begin anew with --fresh, which keeps what is there");
}

absl::Status TrainingRun::CheckResumePoint() {
  RETURN_IF_ERROR(CheckUnchanged());
  if (options_.train.steps < first_step_) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: train.steps = %d, but this run has come to step %d; raise train.steps, choose another "
        "train.run_dir, or begin anew with --fresh",
        options_.train.run_dir, options_.train.steps, first_step_));
  }
  return absl::OkStatus();
}

absl::Status TrainingRun::CheckUnchanged() {
  ASSIGN_OR_RETURN(const RunOptions before, ReadCheckpointOptions(files_, *resume_from_));
  const ResumeChanges changes = ClassifyForResume(CompareConfigs(before, options_));
  if (!changes.refused.empty()) {
    std::vector<std::string> lines;
    for (const ConfigChange& change : changes.refused) {
      lines.push_back(change.ToString());
    }
    return absl::FailedPreconditionError(absl::StrCat(
        options_.train.run_dir, ": this run was started with another configuration (",
        absl::StrJoin(lines, "; "),
        "); restore these values, choose another train.run_dir, or begin anew with --fresh"));
  }
  if (is_first()) {
    RETURN_IF_ERROR(CheckSameDataAs(files_, *resume_from_, data_record_));
  }
  changed_ = changes.allowed;
  return absl::OkStatus();
}

absl::Status TrainingRun::LoadResumePoint() {
  while (resume_from_.has_value()) {
    const absl::Status loaded = LoadTraining(files_, world_, *trainer_, *resume_from_);
    if (!IsDamage(loaded)) {
      return loaded;
    }
    skipped_.emplace_back(loaded.message());
    RETURN_IF_ERROR(FindResumePoint(first_step_));
  }
  return BeginAnew();
}

bool TrainingRun::MayGoOn() {
  bool found = false;
  if (start_ == StartMode::kResume && is_first()) {
    const absl::StatusOr<std::vector<StepDirectory>> saved =
        ListStepDirectories(files_, options_.train.run_dir);
    // What cannot be listed is for FindResumePoint to name.
    found = !saved.ok() ||
            std::any_of(saved->begin(), saved->end(), [](const StepDirectory& directory) {
              return directory.ending.empty() || directory.ending == kReplacedEnding;
            });
  }
  return world_.host->Broadcast(found ? "1" : "0", /*root=*/0) == "1";
}

absl::Status TrainingRun::OpenStartingPoint() {
  if (options_.train.start_from.empty() || start_weights_.has_value()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(start_weights_, OpenStartWeights(files_, *world_.host, options_));
  return absl::OkStatus();
}

absl::Status TrainingRun::BeginAnew() {
  if (options_.train.start_from.empty()) {
    trainer_->InitializeParameters();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(OpenStartingPoint());
  return LoadStartWeights(files_, world_, trainer_->instance(), *start_weights_);
}

absl::Status TrainingRun::PlanMemory() {
  ASSIGN_OR_RETURN(World plan_world,
                   PlanWorld(options_.parallel, world_.mesh.world_size(), world_.mesh.tensor_rank));
  const StepPlan plan = Trainer::Plan(options_, plan_world, world_.device);
  arena_bytes_ = plan.arena_bytes;
  products_ = plan.products;
  const bool copies = options_.checkpoint.staging == CheckpointStaging::kCopy;
  if (world_.device.is_cuda()) {
    RETURN_IF_ERROR(FitsGpu(plan));
    return FitsHost(plan.memory.bytes(MemoryCategory::kPinned),
                    copies ? "checkpoint.staging = \"none\" or more hosts" : "more hosts");
  }
  return FitsHost(plan.total_bytes(),
                  absl::StrCat("a smaller train.micro_batch, model.recompute = \"block\", ",
                               copies ? "checkpoint.staging = \"none\", " : "",
                               "more hosts, or a larger parallel.tensor"));
}

absl::Status TrainingRun::FitsHost(int64_t bytes, const std::string& remedies) const {
  const int64_t needed = bytes * world_.ranks_on_host;
  const std::optional<int64_t> available = AvailableHostBytes();
  if (!available.has_value() || needed <= *available) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrFormat(
      "the %d workers on this host need %s but it has %s available; use %s "
      "(`panthera plan` shows what takes the memory)",
      world_.ranks_on_host, FormatBytes(needed), FormatBytes(*available), remedies));
}

absl::Status TrainingRun::FitsGpu(const StepPlan& plan) const {
  const int64_t needed = plan.total_bytes() * world_.ranks_on_gpu;
  const int64_t available = cuda::FreeBytes(world_.device);
  if (needed <= available) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrFormat(
      "rank %d needs %s of its GPU's memory but %s are free; use a smaller train.micro_batch, "
      "model.recompute = \"block\", more GPUs, or a larger parallel.tensor "
      "(`panthera plan --device cuda` shows what takes the memory)",
      world_.mesh.rank(), FormatBytes(needed), FormatBytes(available)));
}

absl::Status TrainingRun::CreateTrainer() {
  trainer_ = std::make_unique<Trainer>(
      options_, world_, std::make_unique<Context>(world_.device, ledger_, arena_bytes_));
  ModelInstance& instance = trainer_->instance();
  ASSIGN_OR_RETURN(gemm_algorithms_, SettleGemmAlgorithms(files_, *world_.host, instance.context(),
                                                          products_, options_.train.run_dir));
  RETURN_IF_ERROR(LoadResumePoint());
  gemm_rate_ =
      MeasureGemmRate(instance.context(), options_.model, instance.dtype(), world_.host_axes());
  return absl::OkStatus();
}

absl::Status TrainingRun::OpenRecords() {
  if (!is_first()) {
    return absl::OkStatus();
  }
  const std::string& directory = options_.train.run_dir;
  RETURN_IF_ERROR(ClearLeftovers(files_, directory));
  if (start_ == StartMode::kFresh) {
    RETURN_IF_ERROR(SetRunAside(files_, directory));
  }
  RETURN_IF_ERROR(WriteFile(files_, directory + "/config.toml", PrintConfig(options_)));
  RETURN_IF_ERROR(
      WriteFile(files_, directory + "/version.txt", absl::StrCat("panthera ", kVersion, "\n")));
  if (!gemm_algorithms_.empty()) {
    RETURN_IF_ERROR(
        WriteFile(files_, absl::StrCat(directory, "/", kGemmAlgorithmFileName), gemm_algorithms_));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<MetricsSink> lines,
                   JsonLinesFile::Open(directory + "/metrics.jsonl", first_step_));
  sinks_.push_back(std::move(lines));
  sinks_.push_back(std::make_unique<ConsoleSink>(std::cout, options_.log.every, STDOUT_FILENO));
  LogStart();
  return absl::OkStatus();
}

void TrainingRun::LogStart() const {
  for (const std::string& reason : skipped_) {
    LOG(WARNING) << reason;
  }
  for (const std::string& save : unfinished_) {
    LOG(INFO) << save;
  }
  for (const ConfigChange& change : changed_) {
    LOG(INFO) << "changed since the last start: " << change.ToString();
  }
  if (!world_.tensor_ranks_share_hosts) {
    LOG(WARNING) << "workers that share layers (parallel.tensor = " << world_.mesh.tensor_size
                 << ") lie on several hosts, between which the activations of every layer travel: "
                    "start neighbours on one host (mpirun --map-by slot, srun "
                    "--distribution=block), or lower parallel.tensor to a divisor of the workers "
                    "of a host";
  }
  const int64_t parameters = trainer_->instance().params().total_elements();
  const int ranks = world_.mesh.world_size();
  const int64_t threads = MaxThreads();
  LOG(INFO) << "panthera " << kVersion << ": " << FormatCount(static_cast<double>(parameters))
            << " parameters, " << ranks << (ranks == 1 ? " rank" : " ranks")
            << (world_.mesh.tensor_size == 1
                    ? ""
                    : absl::StrCat(" (", world_.mesh.data_size, " x ", world_.mesh.tensor_size,
                                   " that share each layer)"))
            << " on " << world_.device << (ranks == 1 ? " with " : ", each with ") << threads
            << (threads == 1 ? " thread" : " threads") << ", products at "
            << FormatCount(gemm_rate_) << "FLOP/s";
  LOG(INFO) << "a step: " << options_.train.global_batch << " sequences of "
            << options_.model.sequence_length << " tokens in "
            << *CountMicroSteps(options_.train, world_.mesh.data_size)
            << " micro-steps; data: " << FormatCount(static_cast<double>(data_->tokens()))
            << " tokens, the run uses "
            << absl::StrFormat(
                   "%.2f", static_cast<double>(options_.train.steps * trainer_->tokens_per_step()) /
                               static_cast<double>(data_->tokens()))
            << " times as many";
  std::string memory;
  for (int c = 0; c < kNumMemoryCategories; ++c) {
    const auto category = static_cast<MemoryCategory>(c);
    const int64_t bytes = ledger_.bytes(category);
    if (bytes > 0) {
      absl::StrAppend(&memory, memory.empty() ? "" : ", ", Name(category), " ", FormatBytes(bytes));
    }
  }
  const int64_t kept =
      ledger_.bytes(MemoryCategory::kWeights) + ledger_.bytes(MemoryCategory::kOptimizerState);
  LOG(INFO) << "memory of a rank: " << memory << "; weights and optimizer state take "
            << absl::StrFormat("%.2f", static_cast<double>(kept) / static_cast<double>(parameters))
            << " bytes per parameter";
  LOG(INFO) << options_.train.run_dir
            << (resume_from_.has_value()     ? absl::StrCat(": going on after step ", first_step_)
                : start_weights_.has_value() ? absl::StrCat(": a new run with the weights of ",
                                                            start_weights_->weights.directory())
                                             : ": a new run");
}

}  // namespace panthera
