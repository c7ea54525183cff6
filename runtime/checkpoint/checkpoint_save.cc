#include "runtime/checkpoint/checkpoint_save.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/host_access.h"
#include "runtime/checkpoint/step_directories.h"

namespace panthera {
namespace {

bool AllFinite(std::span<const std::byte> bytes, DType dtype) {
  const auto any_with_exponent = [&bytes](auto exponent) {
    using Word = decltype(exponent);
    const auto* words = reinterpret_cast<const Word*>(bytes.data());
    int found = 0;
    for (size_t i = 0; i < bytes.size() / sizeof(Word); ++i) {
      found |= (words[i] & exponent) == exponent ? 1 : 0;
    }
    return found != 0;
  };
  switch (dtype) {
    case DType::kF32:
      return !any_with_exponent(uint32_t{0x7F800000});
    case DType::kBF16:
      return !any_with_exponent(uint16_t{0x7F80});
    case DType::kF16:
      return !any_with_exponent(uint16_t{0x7C00});
    case DType::kF64:
      return !any_with_exponent(uint64_t{0x7FF0000000000000});
    default:
      return true;
  }
}

absl::Status CreateTensorFile(FileSystem& files, const std::string& path,
                              const SafetensorsHeader& header) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.Open(path, OpenMode::kCreate));
  RETURN_IF_ERROR(file->Allocate(header.file_bytes));
  RETURN_IF_ERROR(file->WriteAt(0, std::as_bytes(std::span(header.bytes))));
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

FileRecord RecordOf(const std::string& name, const std::string& checked, int64_t bytes) {
  return {name, bytes, static_cast<int64_t>(checked.size()), Checksum(checked)};
}

// Writes the blocks of one piece into its file, unless the save is given up. Fills the slice's
// checksums.
absl::Status WritePiece(File& file, int64_t tensor_begin, const TensorPiece& piece,
                        HostAccess& host, const std::atomic<bool>& given_up, SliceRecord& slice,
                        bool& finite) {
  const int64_t size = SizeOf(piece.data.dtype());
  const int64_t block_elements = kChecksumBlockBytes / size;
  for (int64_t begin = 0; begin < piece.runs.elements(); begin += block_elements) {
    if (given_up) {
      return absl::CancelledError("given up");
    }
    const int64_t end = std::min(begin + block_elements, piece.runs.elements());
    const std::span<const std::byte> block = host.Read(piece.data, begin, end);
    const auto part = [&](int64_t position, int64_t elements) {
      return block.subspan(static_cast<size_t>((position - begin) * size),
                           static_cast<size_t>(elements * size));
    };
    slice.checksums.push_back(Checksum(block));
    finite = finite && AllFinite(block, piece.data.dtype());
    RETURN_IF_ERROR(ForEachRun(piece.runs, begin, end, [&](const RunPart& run) {
      return file.WriteAt(tensor_begin + run.element * size, part(run.position, run.elements));
    }));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointSave>> CheckpointSave::Begin(
    FileSystem& files, HostGroup& group, const std::string& run_directory,
    CheckpointContents contents, const RetentionOptions& retention, SaveThread thread) {
  std::unique_ptr<CheckpointSave> save(
      new CheckpointSave(files, group, run_directory, std::move(contents), retention, thread));
  RETURN_IF_ERROR(save->Plan());
  save->BeginPartOnFirst(Stage::kCreating, &CheckpointSave::CreateFiles);
  return save;
}

CheckpointSave::CheckpointSave(FileSystem& files, HostGroup& group,
                               const std::string& run_directory, CheckpointContents contents,
                               const RetentionOptions& retention, SaveThread thread)
    : files_(files),
      group_(group),
      run_directory_(run_directory),
      contents_(std::move(contents)),
      retention_(retention),
      thread_(thread) {
  for (const TensorSet& set : contents_.sets) {
    for (const TensorPiece& piece : set.pieces) {
      CHECK(thread == SaveThread::kCaller || piece.data.device().is_cpu()) << piece.name;
    }
  }
}

absl::Status CheckpointSave::Plan() {
  own_ = Describe(contents_);
  ASSIGN_OR_RETURN(const RankRecord joined, JoinRecords(group_, own_));
  plan_ = MakePlan(CheckpointDirectory(run_directory_, step()) + kTemporaryEnding, joined,
                   contents_.max_file_bytes);
  return absl::OkStatus();
}

bool CheckpointSave::WaitFor(std::chrono::milliseconds limit) const {
  return !part_.valid() || part_.wait_for(limit) != std::future_status::timeout;
}

absl::Status CheckpointSave::Advance() {
  const absl::Status status = BeginNextStage();
  if (status.ok()) {
    return status;
  }
  if (group_.rank() == 0) {
    // Gives the disk space back; if this fails too, the next save tries again.
    (void)RemoveTree(files_, plan_.directory);
  }
  return {status.code(), absl::StrCat("saving ", CheckpointDirectory(run_directory_, step()), ": ",
                                      status.message())};
}

absl::Status CheckpointSave::BeginNextStage() {
  RETURN_IF_ERROR(Agree(group_, EndPart()));
  switch (stage_) {
    case Stage::kCreating:
      BeginPart(Stage::kWriting, &CheckpointSave::WritePieces);
      break;
    case Stage::kWriting: {
      ASSIGN_OR_RETURN(joined_, JoinRecords(group_, own_));
      BeginPartOnFirst(Stage::kPublishing, &CheckpointSave::Publish);
      break;
    }
    case Stage::kPublishing:
      stage_ = Stage::kComplete;
      if (!removed_old_.ok()) {
        LOG(WARNING) << "old checkpoints stay: " << std::string(removed_old_.message());
      }
      break;
    case Stage::kComplete:
      CHECK(false) << "the save of step " << step() << " is complete";
  }
  return absl::OkStatus();
}

void CheckpointSave::BeginPart(Stage stage, absl::Status (CheckpointSave::*part)()) {
  stage_ = stage;
  part_ = std::async(thread_ == SaveThread::kOwn ? std::launch::async : std::launch::deferred,
                     [this, part] { return (this->*part)(); });
}

void CheckpointSave::BeginPartOnFirst(Stage stage, absl::Status (CheckpointSave::*part)()) {
  stage_ = stage;
  if (group_.rank() == 0) {
    BeginPart(stage, part);
  }
}

absl::Status CheckpointSave::EndPart() { return part_.valid() ? part_.get() : absl::OkStatus(); }

// Every file in its final length, small files complete.
absl::Status CheckpointSave::CreateFiles() {
  RETURN_IF_ERROR(ClearLeftovers(files_, run_directory_));
  RETURN_IF_ERROR(files_.MakeDirectories(plan_.directory));
  RETURN_IF_ERROR(files_.SyncDirectory(run_directory_));
  std::vector<SmallFile> small_files = contents_.small_files;
  for (size_t i = 0; i < plan_.set_files.size(); ++i) {
    for (const SafetensorsFile& file : plan_.set_files[i]) {
      RETURN_IF_ERROR(
          CreateTensorFile(files_, absl::StrCat(plan_.directory, "/", file.name), file.header));
      file_records_.push_back(RecordOf(file.name, file.header.bytes, file.header.file_bytes));
    }
    if (plan_.set_files[i].size() > 1) {
      small_files.push_back({plan_.set_names[i] + ".safetensors.index.json",
                             SafetensorsIndexJson(plan_.set_files[i])});
    }
  }
  for (const SmallFile& file : small_files) {
    CHECK(file.name != kManifestName && file.name.find('/') == std::string::npos) << file.name;
    RETURN_IF_ERROR(
        WriteFile(files_, absl::StrCat(plan_.directory, "/", file.name), file.contents));
    file_records_.push_back(
        RecordOf(file.name, file.contents, static_cast<int64_t>(file.contents.size())));
  }
  return absl::OkStatus();
}

// Returns when the pieces are on the disk.
absl::Status CheckpointSave::WritePieces() {
  absl::flat_hash_map<std::string, std::unique_ptr<File>> open_files;
  HostAccess host;
  for (size_t s = 0; s < contents_.sets.size(); ++s) {
    size_t next = 0;
    for (const TensorPiece& piece : contents_.sets[s].pieces) {
      if (piece.runs.elements() == 0) {
        continue;
      }
      const TensorPlace& place = plan_.places.at(TensorKey(contents_.sets[s].name, piece.name));
      std::unique_ptr<File>& file = open_files[place.file];
      if (file == nullptr) {
        ASSIGN_OR_RETURN(
            file, files_.Open(absl::StrCat(plan_.directory, "/", place.file), OpenMode::kWrite));
      }
      RETURN_IF_ERROR(WritePiece(*file, place.begin, piece, host, given_up_,
                                 own_.sets[s].tensors[next++].slices.front(), own_.finite));
    }
  }
  for (const auto& [name, file] : open_files) {
    RETURN_IF_ERROR(file->Sync());
    RETURN_IF_ERROR(file->Close());
  }
  return absl::OkStatus();
}

// The manifest, then the final name, then there is something newer than what is removed.
absl::Status CheckpointSave::Publish() {
  Manifest manifest;
  manifest.program = contents_.program;
  manifest.step = step();
  manifest.finite = joined_.finite;
  manifest.files = std::move(file_records_);
  manifest.sets = std::move(joined_.sets);
  for (TensorSetRecord& set : manifest.sets) {
    for (TensorRecord& record : set.tensors) {
      record.file = plan_.places.at(TensorKey(set.name, record.tensor.name)).file;
    }
  }
  RETURN_IF_ERROR(
      WriteFile(files_, absl::StrCat(plan_.directory, "/", kManifestName), ManifestJson(manifest)));
  RETURN_IF_ERROR(files_.SyncDirectory(plan_.directory));
  RETURN_IF_ERROR(PublishStep(files_, run_directory_, step()));
  removed_old_ = RotateCheckpoints(files_, run_directory_, step(), retention_);
  return absl::OkStatus();
}

absl::Status SaveCheckpoint(FileSystem& files, HostGroup& group, const std::string& run_directory,
                            const CheckpointContents& contents, const RetentionOptions& retention) {
  ASSIGN_OR_RETURN(
      const std::unique_ptr<CheckpointSave> save,
      CheckpointSave::Begin(files, group, run_directory, contents, retention, SaveThread::kCaller));
  while (!save->is_complete()) {
    RETURN_IF_ERROR(save->Advance());
  }
  return absl::OkStatus();
}

}  // namespace panthera
