#include "launcher/run_directory.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "launcher/config_file.h"
#include "launcher/training_checkpoint.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/step_directories.h"

namespace panthera {
namespace {

constexpr char kSetAsidePrefix[] = "set_aside_";
constexpr char kLockName[] = "lock";
constexpr char kCheckpointsName[] = "checkpoints";

bool HasEntry(const std::vector<DirectoryEntry>& entries, const std::string& name) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const DirectoryEntry& entry) { return entry.name == name; });
}

// The checkpoint directory that `path` and `step` name, or "" if `path` is to be searched as a run
// directory.
absl::StatusOr<std::string> NamedCheckpoint(FileSystem& files, const std::string& path,
                                            std::optional<int64_t> step) {
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files.List(path));
  if (HasEntry(entries, "manifest.json")) {
    if (step.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is a checkpoint itself, and --step ", *step,
                       " chooses one of a run; leave --step out or give the run directory"));
    }
    return path;
  }
  if (!step.has_value()) {
    return "";
  }
  ASSIGN_OR_RETURN(const std::vector<StepDirectory> saved, ListStepDirectories(files, path));
  std::vector<int64_t> steps;
  for (const StepDirectory& directory : saved) {
    if (directory.ending.empty()) {
      steps.push_back(directory.step);
    }
  }
  if (std::find(steps.begin(), steps.end(), *step) == steps.end()) {
    return absl::NotFoundError(absl::StrCat(
        path, " has no checkpoint of step ", *step,
        steps.empty() ? "; give the directory of a run that has saved (its train.run_dir)"
                      : absl::StrCat("; give --step ", absl::StrJoin(steps, " or "),
                                     ", or leave it out for the newest")));
  }
  return CheckpointDirectory(path, *step);
}

absl::StatusOr<Checkpoint> OpenNamedCheckpoint(FileSystem& files, HostGroup& host,
                                               const std::string& path,
                                               std::optional<int64_t> step) {
  absl::StatusOr<std::string> directory = std::string();
  if (host.rank() == 0) {
    directory = NamedCheckpoint(files, path, step);
  }
  RETURN_IF_ERROR(Agree(host, directory.status()));
  const std::string agreed = host.Broadcast(*directory, /*root=*/0);
  if (agreed.empty()) {
    return SearchRun(files, host, path);
  }
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(files, agreed);
  if (!checkpoint.ok()) {
    return AdviseOnDamage(checkpoint.status());
  }
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenSavedTokenizer(FileSystem& files,
                                                              const RunOptions& options,
                                                              const Checkpoint& checkpoint) {
  if (options.data.tokenizer.empty()) {
    return nullptr;
  }
  if (options.data.tokenizer == "bytes") {
    return OpenTokenizer(options.data.tokenizer);
  }
  ASSIGN_OR_RETURN(std::string model, checkpoint.ReadSmallFile(files, kCheckpointTokenizerName));
  return TokenizerFromBytes(absl::StrCat(checkpoint.directory(), "/", kCheckpointTokenizerName),
                            std::move(model));
}

}  // namespace

absl::Status SetRunAside(FileSystem& files, const std::string& run_dir) {
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files.List(run_dir));
  std::vector<std::string> names;
  for (const DirectoryEntry& entry : entries) {
    if (entry.name != kLockName && !absl::StartsWith(entry.name, kSetAsidePrefix)) {
      names.push_back(entry.name);
    }
  }
  std::stable_partition(names.begin(), names.end(),
                        [](const std::string& name) { return name == kCheckpointsName; });
  if (names.empty()) {
    return absl::OkStatus();
  }
  int number = 1;
  while (HasEntry(entries, absl::StrCat(kSetAsidePrefix, number))) {
    ++number;
  }
  const std::string aside = absl::StrCat(run_dir, "/", kSetAsidePrefix, number);
  RETURN_IF_ERROR(files.MakeDirectories(aside));
  for (const std::string& name : names) {
    RETURN_IF_ERROR(files.Rename(absl::StrCat(run_dir, "/", name), absl::StrCat(aside, "/", name)));
  }
  RETURN_IF_ERROR(files.SyncDirectory(aside));
  RETURN_IF_ERROR(files.SyncDirectory(run_dir));
  LOG(INFO) << "the earlier run was moved to " << aside;
  return absl::OkStatus();
}

absl::Status NoUsableCheckpoint(const std::string& run_dir, const std::vector<std::string>& skipped,
                                const std::string& remedy) {
  const size_t others = skipped.size() - 1;
  return absl::DataLossError(absl::StrCat(
      run_dir, ": none of its checkpoints is whole and finite (", skipped.front(),
      others == 0 ? "" : absl::StrCat("; and ", others, others == 1 ? " other" : " others"), "); ",
      remedy));
}

absl::StatusOr<Checkpoint> SearchRun(FileSystem& files, HostGroup& host,
                                     const std::string& run_dir) {
  ASSIGN_OR_RETURN(FoundCheckpoint found, FindNewest(files, host, run_dir));
  if (!found.checkpoint.has_value() && !found.skipped.empty()) {
    return NoUsableCheckpoint(run_dir, found.skipped, "restore one of them or give another run");
  }
  if (host.rank() == 0) {
    for (const std::string& reason : found.skipped) {
      LOG(WARNING) << reason;
    }
  }
  if (!found.checkpoint.has_value()) {
    return absl::NotFoundError(absl::StrCat(
        run_dir,
        ": no whole checkpoint with finite numbers here; give a run directory (train.run_dir of a "
        "run that has saved) or a directory like RUN_DIR/checkpoints/step_00001000"));
  }
  return *std::move(found.checkpoint);
}

absl::Status AdviseOnDamage(const absl::Status& status) {
  return absl::IsDataLoss(status)
             ? absl::DataLossError(absl::StrCat(status.message(), "; use an older checkpoint"))
             : status;
}

absl::StatusOr<RunOptions> ReadCheckpointOptions(FileSystem& files, const Checkpoint& checkpoint) {
  ASSIGN_OR_RETURN(const std::string text, checkpoint.ReadSmallFile(files, kCheckpointConfigName));
  RunOptions options;
  RETURN_IF_ERROR(ParseConfig(
      text, absl::StrCat(checkpoint.directory(), "/", kCheckpointConfigName), {}, options));
  RETURN_IF_ERROR(options.model.Finish());
  RETURN_IF_ERROR(options.optim.Finish());
  return options;
}

absl::Status CheckSameDataAs(FileSystem& files, const Checkpoint& checkpoint,
                             const DataRecord& data) {
  ASSIGN_OR_RETURN(const std::string text, checkpoint.ReadSmallFile(files, kCheckpointStateName));
  ASSIGN_OR_RETURN(const RunState state, ParseRunState(text));
  const absl::Status same = CheckSameData(state.data, data);
  if (same.ok()) {
    return same;
  }
  return absl::FailedPreconditionError(
      absl::StrCat(checkpoint.directory(), ": ", std::string(same.message()),
                   "; restore it, choose another train.run_dir, or begin anew with --fresh"));
}

absl::StatusOr<SavedModel> OpenSavedModel(FileSystem& files, HostGroup& host,
                                          const std::string& path, std::optional<int64_t> step) {
  absl::StatusOr<Checkpoint> checkpoint = OpenNamedCheckpoint(files, host, path, step);
  RETURN_IF_ERROR(Agree(host, checkpoint.status()));
  absl::StatusOr<RunOptions> options = ReadCheckpointOptions(files, *checkpoint);
  RETURN_IF_ERROR(Agree(host, options.status()));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      OpenSavedTokenizer(files, *options, *checkpoint);
  RETURN_IF_ERROR(Agree(host, tokenizer.status()));
  return SavedModel{.options = *std::move(options),
                    .checkpoint = *std::move(checkpoint),
                    .tokenizer = *std::move(tokenizer)};
}

}  // namespace panthera
