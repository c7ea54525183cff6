#include "launcher/run_directory.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "launcher/config_file.h"
#include "launcher/training_checkpoint.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"

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
  return step.has_value() ? CheckpointDirectory(path, *step) : "";
}

absl::StatusOr<Checkpoint> SearchRun(FileSystem& files, HostGroup& host,
                                     const std::string& run_dir) {
  ASSIGN_OR_RETURN(FoundCheckpoint found, FindNewest(files, host, run_dir));
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

absl::StatusOr<Checkpoint> OpenNamedCheckpoint(FileSystem& files, HostGroup& host,
                                               const std::string& path,
                                               std::optional<int64_t> step) {
  absl::StatusOr<std::string> directory = std::string();
  if (host.rank() == 0) {
    directory = NamedCheckpoint(files, path, step);
  }
  RETURN_IF_ERROR(Agree(host, directory.status()));
  const std::string agreed = host.Broadcast(*directory, /*root=*/0);
  return agreed.empty() ? SearchRun(files, host, path) : Checkpoint::Open(files, agreed);
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

absl::StatusOr<RunOptions> ReadCheckpointOptions(FileSystem& files, const Checkpoint& checkpoint) {
  ASSIGN_OR_RETURN(const std::string text, checkpoint.ReadSmallFile(files, kCheckpointConfigName));
  RunOptions options;
  RETURN_IF_ERROR(ParseConfig(
      text, absl::StrCat(checkpoint.directory(), "/", kCheckpointConfigName), {}, options));
  RETURN_IF_ERROR(options.model.Finish());
  RETURN_IF_ERROR(options.optim.Finish());
  return options;
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
