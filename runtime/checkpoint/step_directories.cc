#include "runtime/checkpoint/step_directories.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/manifest.h"

namespace panthera {
namespace {

constexpr char kPrefix[] = "step_";

// Renames first: a directory that is only half removed must not look like a checkpoint.
absl::Status RemoveStep(FileSystem& files, const std::string& parent,
                        const StepDirectory& directory) {
  const std::string deleted =
      absl::StrCat(parent, "/", StepDirectory{directory.step, kDeletedEnding}.name());
  RETURN_IF_ERROR(files.Rename(absl::StrCat(parent, "/", directory.name()), deleted));
  RETURN_IF_ERROR(files.SyncDirectory(parent));
  return RemoveTree(files, deleted);
}

bool Contains(const std::vector<StepDirectory>& directories, int64_t step,
              const std::string& ending) {
  return std::any_of(directories.begin(), directories.end(), [&](const StepDirectory& entry) {
    return entry.step == step && entry.ending == ending;
  });
}

}  // namespace

std::string CheckpointsDirectory(const std::string& run_directory) {
  return run_directory + "/checkpoints";
}

std::string StepName(int64_t step) { return absl::StrFormat("%s%08d", kPrefix, step); }

std::string CheckpointDirectory(const std::string& run_directory, int64_t step) {
  return absl::StrCat(CheckpointsDirectory(run_directory), "/", StepName(step));
}

std::optional<StepDirectory> ParseStepDirectory(const std::string& name) {
  StepDirectory directory;
  const std::string prefix = kPrefix;
  if (name.compare(0, prefix.size(), prefix) != 0) {
    return std::nullopt;
  }
  const char* end = name.data() + name.size();
  const std::from_chars_result result =
      std::from_chars(name.data() + prefix.size(), end, directory.step);
  if (result.ec != std::errc() || directory.step < 0) {
    return std::nullopt;
  }
  directory.ending.assign(result.ptr, end);
  const bool known = directory.ending.empty() || directory.ending == kTemporaryEnding ||
                     directory.ending == kReplacedEnding || directory.ending == kDeletedEnding;
  if (!known || directory.name() != name) {
    return std::nullopt;
  }
  return directory;
}

absl::StatusOr<std::vector<StepDirectory>> ListStepDirectories(FileSystem& files,
                                                               const std::string& run_directory) {
  std::vector<StepDirectory> directories;
  absl::StatusOr<std::vector<DirectoryEntry>> entries =
      files.List(CheckpointsDirectory(run_directory));
  if (absl::IsNotFound(entries.status())) {
    return directories;
  }
  RETURN_IF_ERROR(entries.status());
  for (const DirectoryEntry& entry : *entries) {
    const std::optional<StepDirectory> directory = ParseStepDirectory(entry.name);
    if (entry.is_directory && directory.has_value()) {
      directories.push_back(*directory);
    }
  }
  std::sort(directories.begin(), directories.end(),
            [](const StepDirectory& a, const StepDirectory& b) {
              return std::tie(b.step, a.ending) < std::tie(a.step, b.ending);
            });
  return directories;
}

absl::Status ClearLeftovers(FileSystem& files, const std::string& run_directory) {
  const std::string parent = CheckpointsDirectory(run_directory);
  ASSIGN_OR_RETURN(const std::vector<StepDirectory> directories,
                   ListStepDirectories(files, run_directory));
  for (const StepDirectory& directory : directories) {
    const bool superseded =
        directory.ending == kReplacedEnding && Contains(directories, directory.step, "");
    if (superseded) {
      // The program may have been killed before the successor's name was on the disk.
      RETURN_IF_ERROR(files.SyncDirectory(parent));
    } else if (directory.ending != kTemporaryEnding && directory.ending != kDeletedEnding) {
      continue;
    }
    const std::string path = absl::StrCat(parent, "/", directory.name());
    RETURN_IF_ERROR(RemoveTree(files, path));
    if (!superseded) {
      LOG(INFO) << "removed " << path << ", which a program that was killed left behind";
    }
  }
  return absl::OkStatus();
}

absl::Status PublishStep(FileSystem& files, const std::string& run_directory, int64_t step) {
  const std::string parent = CheckpointsDirectory(run_directory);
  const std::string target = CheckpointDirectory(run_directory, step);
  ASSIGN_OR_RETURN(const std::vector<StepDirectory> directories,
                   ListStepDirectories(files, run_directory));
  if (Contains(directories, step, "")) {
    RETURN_IF_ERROR(files.Rename(target, target + kReplacedEnding));
  }
  RETURN_IF_ERROR(files.Rename(target + kTemporaryEnding, target));
  return files.SyncDirectory(parent);
}

absl::Status RotateCheckpoints(FileSystem& files, const std::string& run_directory,
                               int64_t newest_step, const RetentionOptions& options) {
  RETURN_IF_ERROR(ClearLeftovers(files, run_directory));
  const std::string parent = CheckpointsDirectory(run_directory);
  ASSIGN_OR_RETURN(const std::vector<StepDirectory> directories,
                   ListStepDirectories(files, run_directory));
  std::vector<StoredCheckpoint> stored;
  for (const StepDirectory& directory : directories) {
    const bool is_checkpoint = directory.ending.empty() || directory.ending == kReplacedEnding;
    if (!is_checkpoint || directory.step > newest_step) {
      continue;
    }
    absl::StatusOr<Checkpoint> checkpoint =
        Checkpoint::Open(files, absl::StrCat(parent, "/", directory.name()));
    if (IsOtherVersion(checkpoint.status())) {
      continue;
    }
    if (!checkpoint.ok() && !IsDamage(checkpoint.status())) {
      return checkpoint.status();
    }
    stored.push_back(
        {directory.step, checkpoint.ok(), checkpoint.ok() && checkpoint->manifest().finite});
  }
  for (const int64_t step : StepsToRemove(stored, options)) {
    // After ClearLeftovers a step has one directory, under the one name or the other.
    const StepDirectory directory{step, Contains(directories, step, "") ? "" : kReplacedEnding};
    RETURN_IF_ERROR(RemoveStep(files, parent, directory));
  }
  return absl::OkStatus();
}

}  // namespace panthera
