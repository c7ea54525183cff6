#include "runtime/checkpoint/checkpoint.h"

#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/step_directories.h"

namespace panthera {
namespace {

// Checks length and checksum of one file.
absl::Status CheckFile(FileSystem& files, const std::string& path, const FileRecord& record) {
  absl::StatusOr<std::unique_ptr<File>> opened = files.Open(path, OpenMode::kRead);
  if (absl::IsNotFound(opened.status())) {
    return absl::DataLossError(path + " is missing: the checkpoint is not whole");
  }
  RETURN_IF_ERROR(opened.status());
  const std::unique_ptr<File> file = *std::move(opened);
  ASSIGN_OR_RETURN(const int64_t bytes, file->Bytes());
  if (bytes != record.bytes) {
    return absl::DataLossError(absl::StrCat(path, " is damaged: it has ", bytes,
                                            " bytes, the manifest says ", record.bytes));
  }
  std::string checked(static_cast<size_t>(record.checked_bytes), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(checked))));
  if (Checksum(checked) != record.checksum) {
    return absl::DataLossError(path + " is damaged: it does not have the checksum of the manifest");
  }
  return absl::OkStatus();
}

// Where the tensors of a file begin, by name.
absl::StatusOr<absl::flat_hash_map<std::string, SafetensorsEntry>> ReadEntries(
    FileSystem& files, const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.Open(path, OpenMode::kRead));
  ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(*file, path));
  absl::flat_hash_map<std::string, SafetensorsEntry> entries;
  for (SafetensorsEntry& entry : header.entries) {
    std::string name = entry.tensor.name;
    entries.emplace(std::move(name), std::move(entry));
  }
  return entries;
}

// Finds the tensors of a set in their files' headers.
absl::Status LocateTensors(FileSystem& files, const std::string& directory,
                           const TensorSetRecord& set,
                           absl::flat_hash_map<std::string, int64_t>& begins) {
  absl::flat_hash_map<std::string, SafetensorsEntry> entries;
  std::string open_file;
  for (const TensorRecord& record : set.tensors) {
    const std::string path = absl::StrCat(directory, "/", record.file);
    if (record.file != open_file) {
      ASSIGN_OR_RETURN(entries, ReadEntries(files, path));
      open_file = record.file;
    }
    const auto entry = entries.find(record.tensor.name);
    if (entry == entries.end() || entry->second.tensor.dtype != record.tensor.dtype ||
        entry->second.tensor.shape != record.tensor.shape) {
      return absl::DataLossError(absl::StrCat(path, " does not hold tensor ", record.tensor.name,
                                              " as the manifest describes it"));
    }
    begins[TensorKey(set.name, record.tensor.name)] = entry->second.begin;
  }
  return absl::OkStatus();
}

// Rank 0's search: the name of the newest checkpoint that is whole and finite, or "", and why
// others were skipped.
struct SearchResult {
  std::string name;
  std::vector<std::string> skipped;
  std::vector<std::string> unfinished;
};

// One line per entry, for SplitLines.
std::string JoinLines(const SearchResult& result) {
  return absl::StrCat(result.name, "\n", result.skipped.size(), "\n",
                      absl::StrJoin(result.skipped, "\n"), result.skipped.empty() ? "" : "\n",
                      absl::StrJoin(result.unfinished, "\n"));
}

SearchResult SplitLines(const std::string& text) {
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  SearchResult result;
  size_t skipped = 0;
  CHECK(lines.size() >= 2 && absl::SimpleAtoi(lines[1], &skipped)) << text;
  result.name = std::move(lines[0]);
  for (size_t i = 2; i < lines.size(); ++i) {
    if (!lines[i].empty()) {
      (i < 2 + skipped ? result.skipped : result.unfinished).push_back(std::move(lines[i]));
    }
  }
  return result;
}

absl::StatusOr<SearchResult> Search(FileSystem& files, const std::string& run_directory,
                                    int64_t before_step) {
  SearchResult result;
  ASSIGN_OR_RETURN(const std::vector<StepDirectory> directories,
                   ListStepDirectories(files, run_directory));
  for (const StepDirectory& directory : directories) {
    if (directory.step >= before_step || directory.ending == kDeletedEnding) {
      continue;
    }
    if (directory.ending == kTemporaryEnding) {
      result.unfinished.push_back(directory.name() + ": its save was not finished");
      continue;
    }
    const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(
        files, absl::StrCat(CheckpointsDirectory(run_directory), "/", directory.name()));
    if (checkpoint.ok() && checkpoint->manifest().finite) {
      result.name = directory.name();
      break;
    }
    if (checkpoint.ok()) {
      result.skipped.push_back(directory.name() + ": it holds numbers that are not finite");
      continue;
    }
    if (!IsDamage(checkpoint.status())) {
      return checkpoint.status();
    }
    result.skipped.emplace_back(checkpoint.status().message());
  }
  return result;
}

}  // namespace

bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsNotFound(status);
}

bool IsOtherVersion(const absl::Status& status) { return absl::IsFailedPrecondition(status); }

absl::StatusOr<Checkpoint> Checkpoint::Open(FileSystem& files, const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const std::string manifest_path = absl::StrCat(directory, "/", kManifestName);
  absl::StatusOr<std::string> text = ReadFile(files, manifest_path);
  if (absl::IsNotFound(text.status())) {
    return absl::DataLossError(directory + " has no manifest.json: it is not a whole checkpoint");
  }
  RETURN_IF_ERROR(text.status());
  absl::StatusOr<Manifest> manifest = ParseManifest(*text);
  if (IsOtherVersion(manifest.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat(manifest_path, " ", manifest.status().message()));
  }
  if (!manifest.ok()) {
    return absl::DataLossError(
        absl::StrCat(manifest_path, " is not valid: ", manifest.status().message()));
  }
  checkpoint.manifest_ = *std::move(manifest);
  for (const FileRecord& file : checkpoint.manifest_.files) {
    RETURN_IF_ERROR(CheckFile(files, absl::StrCat(directory, "/", file.name), file));
  }
  for (const TensorSetRecord& set : checkpoint.manifest_.sets) {
    RETURN_IF_ERROR(LocateTensors(files, directory, set, checkpoint.tensor_begins_));
  }
  return checkpoint;
}

const TensorSetRecord* Checkpoint::FindSet(const std::string& name) const {
  for (const TensorSetRecord& set : manifest_.sets) {
    if (set.name == name) {
      return &set;
    }
  }
  return nullptr;
}

absl::StatusOr<std::string> Checkpoint::ReadSmallFile(FileSystem& files,
                                                      const std::string& name) const {
  const std::string path = absl::StrCat(directory_, "/", name);
  for (const FileRecord& file : manifest_.files) {
    if (file.name == name && file.checked_bytes == file.bytes) {
      ASSIGN_OR_RETURN(std::string contents, ReadFile(files, path));
      if (Checksum(contents) != file.checksum) {
        return absl::DataLossError(path +
                                   " is damaged: it does not have the checksum of the manifest");
      }
      return contents;
    }
  }
  return absl::NotFoundError(absl::StrCat(directory_, " has no file ", name));
}

int64_t Checkpoint::TensorBegin(const TensorSetRecord& set, const TensorRecord& record) const {
  const auto place = tensor_begins_.find(TensorKey(set.name, record.tensor.name));
  CHECK(place != tensor_begins_.end()) << record.tensor.name;
  return place->second;
}

absl::StatusOr<FoundCheckpoint> FindNewest(FileSystem& files, HostGroup& group,
                                           const std::string& run_directory, int64_t before_step) {
  absl::StatusOr<SearchResult> result = SearchResult();
  if (group.rank() == 0) {
    result = Search(files, run_directory, before_step);
  }
  RETURN_IF_ERROR(Agree(group, result.status()));
  // Names and messages are single lines.
  SearchResult agreed = SplitLines(group.Broadcast(JoinLines(*result), /*root=*/0));
  FoundCheckpoint found;
  found.skipped = std::move(agreed.skipped);
  found.unfinished = std::move(agreed.unfinished);
  if (agreed.name.empty()) {
    return found;
  }
  absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(files, absl::StrCat(CheckpointsDirectory(run_directory), "/", agreed.name));
  RETURN_IF_ERROR(Agree(group, checkpoint.status()));
  found.checkpoint = *std::move(checkpoint);
  return found;
}

}  // namespace panthera
