#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/host_access.h"
#include "runtime/checkpoint/step_directories.h"

namespace panthera {
namespace {

// Where a tensor lies in the new checkpoint.
struct TensorPlace {
  std::string file;
  int64_t begin = 0;  // in bytes
};

// What all ranks know before anything is written.
struct SavePlan {
  std::string directory;                                // ends in .tmp
  std::vector<std::vector<SafetensorsFile>> set_files;  // by set
  std::vector<std::string> set_names;
  absl::flat_hash_map<std::string, TensorPlace> places;  // by TensorKey
};

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

void CheckPiece(const TensorPiece& piece) {
  CHECK_EQ(piece.data.elements(), piece.runs.elements()) << piece.name;
  CHECK(!piece.data.device().is_meta()) << piece.name << " has no data";
  CHECK_OK(CheckRuns(piece.runs, piece.global_shape.elements())) << piece.name;
}

// This rank's slices, without checksums.
RankRecord Describe(const CheckpointContents& contents) {
  RankRecord record;
  for (const TensorSet& set : contents.sets) {
    TensorSetRecord set_record;
    set_record.name = set.name;
    set_record.derived = set.derived;
    for (const TensorPiece& piece : set.pieces) {
      if (piece.runs.elements() == 0) {
        continue;
      }
      CheckPiece(piece);
      set_record.tensors.push_back(
          {{piece.name, piece.data.dtype(), piece.global_shape}, "", {{piece.runs, {}}}});
    }
    record.sets.push_back(std::move(set_record));
  }
  return record;
}

absl::Status Append(TensorSetRecord from, TensorSetRecord& to,
                    absl::flat_hash_map<std::string, size_t>& index) {
  for (TensorRecord& record : from.tensors) {
    const std::string key = TensorKey(from.name, record.tensor.name);
    const auto [place, is_first] = index.try_emplace(key, to.tensors.size());
    if (is_first) {
      to.tensors.push_back(std::move(record));
      continue;
    }
    TensorRecord& known = to.tensors[place->second];
    if (known.tensor.shape != record.tensor.shape || known.tensor.dtype != record.tensor.dtype) {
      return absl::InternalError(
          absl::StrCat("ranks disagree about tensor ", key, ": ", ToString(known.tensor.shape), " ",
                       Name(known.tensor.dtype), " and ", ToString(record.tensor.shape), " ",
                       Name(record.tensor.dtype)));
    }
    std::move(record.slices.begin(), record.slices.end(), std::back_inserter(known.slices));
  }
  return absl::OkStatus();
}

// Sends this rank's part to all and joins the parts of all: tensors in the order in which files
// hold them (wide element types first, then by name), slices by first element. Collective; the
// result is the same on all ranks.
absl::StatusOr<RankRecord> JoinRecords(HostGroup& group, const RankRecord& own) {
  RankRecord joined;
  absl::flat_hash_map<std::string, size_t> set_index;
  absl::flat_hash_map<std::string, size_t> tensor_index;
  for (const std::string& text : group.AllGather(RankRecordJson(own))) {
    ASSIGN_OR_RETURN(RankRecord part, ParseRankRecord(text));
    joined.finite = joined.finite && part.finite;
    for (TensorSetRecord& set : part.sets) {
      const auto [place, is_first] = set_index.try_emplace(set.name, joined.sets.size());
      if (is_first) {
        joined.sets.push_back({set.name, set.derived, {}});
      }
      RETURN_IF_ERROR(Append(std::move(set), joined.sets[place->second], tensor_index));
    }
  }
  for (TensorSetRecord& set : joined.sets) {
    std::sort(set.tensors.begin(), set.tensors.end(),
              [](const TensorRecord& a, const TensorRecord& b) {
                const int64_t a_bytes = SizeOf(a.tensor.dtype);
                const int64_t b_bytes = SizeOf(b.tensor.dtype);
                return a_bytes != b_bytes ? a_bytes > b_bytes : a.tensor.name < b.tensor.name;
              });
    for (TensorRecord& record : set.tensors) {
      std::sort(
          record.slices.begin(), record.slices.end(),
          [](const SliceRecord& a, const SliceRecord& b) { return a.runs.begin < b.runs.begin; });
      if (const absl::Status status = CheckSlices(record); !status.ok()) {
        return absl::InternalError(status.message());
      }
    }
  }
  return joined;
}

SavePlan MakePlan(const std::string& directory, const RankRecord& joined, int64_t max_file_bytes) {
  SavePlan plan;
  plan.directory = directory;
  for (const TensorSetRecord& set : joined.sets) {
    std::vector<TensorDescription> tensors;
    for (const TensorRecord& record : set.tensors) {
      tensors.push_back(record.tensor);
    }
    plan.set_names.push_back(set.name);
    plan.set_files.push_back(SpreadOverFiles(set.name, tensors, max_file_bytes));
    for (const SafetensorsFile& file : plan.set_files.back()) {
      for (const SafetensorsEntry& entry : file.header.entries) {
        plan.places[TensorKey(set.name, entry.tensor.name)] = {file.name, entry.begin};
      }
    }
  }
  return plan;
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

// Rank 0: makes the directory with every file in its final length, small files complete.
absl::StatusOr<std::vector<FileRecord>> CreateFiles(FileSystem& files,
                                                    const std::string& run_directory,
                                                    const SavePlan& plan,
                                                    const CheckpointContents& contents) {
  RETURN_IF_ERROR(ClearLeftovers(files, run_directory));
  RETURN_IF_ERROR(files.MakeDirectories(plan.directory));
  RETURN_IF_ERROR(files.SyncDirectory(run_directory));
  std::vector<SmallFile> small_files = contents.small_files;
  std::vector<FileRecord> records;
  for (size_t i = 0; i < plan.set_files.size(); ++i) {
    for (const SafetensorsFile& file : plan.set_files[i]) {
      RETURN_IF_ERROR(
          CreateTensorFile(files, absl::StrCat(plan.directory, "/", file.name), file.header));
      records.push_back(RecordOf(file.name, file.header.bytes, file.header.file_bytes));
    }
    if (plan.set_files[i].size() > 1) {
      small_files.push_back(
          {plan.set_names[i] + ".safetensors.index.json", SafetensorsIndexJson(plan.set_files[i])});
    }
  }
  for (const SmallFile& file : small_files) {
    CHECK(file.name != kManifestName && file.name.find('/') == std::string::npos) << file.name;
    RETURN_IF_ERROR(WriteFile(files, absl::StrCat(plan.directory, "/", file.name), file.contents));
    records.push_back(
        RecordOf(file.name, file.contents, static_cast<int64_t>(file.contents.size())));
  }
  return records;
}

// Writes the blocks of one piece into its file. Fills the slice's checksums.
absl::Status WritePiece(File& file, int64_t tensor_begin, const TensorPiece& piece,
                        HostAccess& host, SliceRecord& slice, bool& finite) {
  const int64_t size = SizeOf(piece.data.dtype());
  const int64_t block_elements = kChecksumBlockBytes / size;
  for (int64_t begin = 0; begin < piece.runs.elements(); begin += block_elements) {
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

// Every rank: writes its pieces and returns when they are on the disk. `record` comes from Describe
// and gets the checksums.
absl::Status WritePieces(FileSystem& files, const SavePlan& plan,
                         const CheckpointContents& contents, RankRecord& record) {
  absl::flat_hash_map<std::string, std::unique_ptr<File>> open_files;
  HostAccess host;
  for (size_t s = 0; s < contents.sets.size(); ++s) {
    size_t next = 0;
    for (const TensorPiece& piece : contents.sets[s].pieces) {
      if (piece.runs.elements() == 0) {
        continue;
      }
      const TensorPlace& place = plan.places.at(TensorKey(contents.sets[s].name, piece.name));
      std::unique_ptr<File>& file = open_files[place.file];
      if (file == nullptr) {
        ASSIGN_OR_RETURN(
            file, files.Open(absl::StrCat(plan.directory, "/", place.file), OpenMode::kWrite));
      }
      RETURN_IF_ERROR(WritePiece(*file, place.begin, piece, host,
                                 record.sets[s].tensors[next++].slices.front(), record.finite));
    }
  }
  for (const auto& [name, file] : open_files) {
    RETURN_IF_ERROR(file->Sync());
    RETURN_IF_ERROR(file->Close());
  }
  return absl::OkStatus();
}

// Rank 0: the manifest, then the final name.
absl::Status Publish(FileSystem& files, const std::string& run_directory, const SavePlan& plan,
                     const CheckpointContents& contents, std::vector<FileRecord> file_records,
                     RankRecord joined) {
  Manifest manifest;
  manifest.program = contents.program;
  manifest.step = contents.step;
  manifest.finite = joined.finite;
  manifest.files = std::move(file_records);
  manifest.sets = std::move(joined.sets);
  for (TensorSetRecord& set : manifest.sets) {
    for (TensorRecord& record : set.tensors) {
      record.file = plan.places.at(TensorKey(set.name, record.tensor.name)).file;
    }
  }
  RETURN_IF_ERROR(
      WriteFile(files, absl::StrCat(plan.directory, "/", kManifestName), ManifestJson(manifest)));
  RETURN_IF_ERROR(files.SyncDirectory(plan.directory));
  return PublishStep(files, run_directory, contents.step);
}

absl::Status WriteCheckpoint(FileSystem& files, HostGroup& group, const std::string& run_directory,
                             const CheckpointContents& contents, const SavePlan& plan) {
  absl::StatusOr<std::vector<FileRecord>> file_records = std::vector<FileRecord>();
  if (group.rank() == 0) {
    file_records = CreateFiles(files, run_directory, plan, contents);
  }
  RETURN_IF_ERROR(Agree(group, file_records.status()));
  RankRecord own = Describe(contents);
  RETURN_IF_ERROR(Agree(group, WritePieces(files, plan, contents, own)));
  ASSIGN_OR_RETURN(RankRecord joined, JoinRecords(group, own));
  absl::Status published;
  if (group.rank() == 0) {
    published =
        Publish(files, run_directory, plan, contents, *std::move(file_records), std::move(joined));
  }
  return Agree(group, published);
}

}  // namespace

absl::Status SaveCheckpoint(FileSystem& files, HostGroup& group, const std::string& run_directory,
                            const CheckpointContents& contents, const RetentionOptions& retention) {
  const std::string directory = CheckpointDirectory(run_directory, contents.step);
  ASSIGN_OR_RETURN(const RankRecord joined, JoinRecords(group, Describe(contents)));
  const SavePlan plan = MakePlan(directory + kTemporaryEnding, joined, contents.max_file_bytes);
  const absl::Status status = WriteCheckpoint(files, group, run_directory, contents, plan);
  if (!status.ok()) {
    if (group.rank() == 0) {
      // Gives the disk space back; if this fails too, the next save tries again.
      (void)RemoveTree(files, plan.directory);
    }
    return absl::Status(status.code(), absl::StrCat("saving ", directory, ": ", status.message()));
  }
  if (group.rank() == 0) {
    if (const absl::Status rotated =
            RotateCheckpoints(files, run_directory, contents.step, retention);
        !rotated.ok()) {
      LOG(WARNING) << "old checkpoints stay: " << std::string(rotated.message());
    }
  }
  return absl::OkStatus();
}

}  // namespace panthera
