#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/host_access.h"
#include "runtime/checkpoint/tensor_blocks.h"

namespace panthera {
namespace {

absl::Status Mismatch(const Checkpoint& checkpoint, const std::string& set,
                      const TensorPiece& piece, const TensorRecord& record) {
  return absl::FailedPreconditionError(absl::StrCat(
      checkpoint.directory(), ": tensor ", piece.name, " of set \"", set, "\" is ",
      ToString(record.tensor.shape), " ", Name(record.tensor.dtype), ", this run wants ",
      ToString(piece.global_shape), " ", Name(piece.data.dtype()),
      record.tensor.shape == piece.global_shape
          ? "; set the storage of weights and momentum in [optim] as it was when it was saved"
          : "; set [model] as it was when it was saved, or start anew in another run directory"));
}

// Which pieces want which tensor of the set.
absl::StatusOr<std::vector<std::vector<size_t>>> MatchPieces(
    const Checkpoint& checkpoint, const TensorSetRecord& set,
    const std::vector<TensorPiece>& pieces) {
  absl::flat_hash_map<std::string, size_t> index;
  for (size_t i = 0; i < set.tensors.size(); ++i) {
    index[set.tensors[i].tensor.name] = i;
  }
  std::vector<std::vector<size_t>> wanted(set.tensors.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    const TensorPiece& piece = pieces[i];
    if (piece.runs.elements() == 0) {
      continue;
    }
    const auto found = index.find(piece.name);
    if (found == index.end()) {
      return absl::FailedPreconditionError(absl::StrCat(
          checkpoint.directory(), ": set \"", set.name, "\" has no tensor ", piece.name, " ",
          ToString(piece.global_shape),
          ", which this run wants; set [model] as it was when it was saved, or start anew in "
          "another run directory"));
    }
    const TensorRecord& record = set.tensors[found->second];
    if (record.tensor.shape != piece.global_shape || record.tensor.dtype != piece.data.dtype()) {
      return Mismatch(checkpoint, set.name, piece, record);
    }
    CHECK_EQ(piece.data.elements(), piece.runs.elements()) << piece.name;
    CHECK_OK(CheckRuns(piece.runs, piece.global_shape.elements())) << piece.name;
    wanted[found->second].push_back(i);
  }
  return wanted;
}

// An error if a tensor that is not derived is wanted by no rank. Collective.
absl::Status CheckNothingLeftOver(HostGroup& group, const Checkpoint& checkpoint,
                                  const TensorSetRecord& set,
                                  const std::vector<std::vector<size_t>>& wanted) {
  std::string marks(wanted.size(), '0');
  for (size_t i = 0; i < wanted.size(); ++i) {
    marks[i] = wanted[i].empty() ? '0' : '1';
  }
  const std::vector<std::string> all_marks = group.AllGather(marks);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const TensorDescription& tensor = set.tensors[i].tensor;
    const bool is_wanted = std::any_of(all_marks.begin(), all_marks.end(),
                                       [i](const std::string& rank) { return rank[i] == '1'; });
    if (!is_wanted &&
        std::find(set.derived.begin(), set.derived.end(), tensor.name) == set.derived.end()) {
      return absl::FailedPreconditionError(absl::StrCat(
          checkpoint.directory(), ": set \"", set.name, "\" has a tensor ", tensor.name, " ",
          ToString(tensor.shape),
          " that this run does not want; set [model] as it was when it was saved, or start anew "
          "in another run directory"));
    }
  }
  return absl::OkStatus();
}

// Hands the blocks of one tensor to the pieces that want them.
class TensorLoader {
 public:
  TensorLoader(TensorBlocks blocks, std::vector<std::byte>& scratch)
      : blocks_(std::move(blocks)),
        size_(SizeOf(blocks_.record().tensor.dtype)),
        scratch_(scratch) {}

  absl::Status Load(std::vector<TensorPiece*> pieces) {
    int64_t missing = 0;
    for (const TensorPiece* piece : pieces) {
      missing += piece->runs.elements();
    }
    for (const SliceRecord& slice : blocks_.record().slices) {
      for (size_t block = 0; block < slice.checksums.size(); ++block) {
        if (Wanted(slice, block, pieces)) {
          RETURN_IF_ERROR(blocks_.Read(slice, block, scratch_));
          missing -= CopyBlock(slice, block, pieces);
        }
      }
    }
    CHECK_EQ(missing, 0) << blocks_.record().tensor.name;
    return absl::OkStatus();
  }

 private:
  bool Wanted(const SliceRecord& slice, size_t block,
              const std::vector<TensorPiece*>& pieces) const {
    const absl::Status found_one =
        ForEachRun(slice.runs, blocks_.Begin(block), blocks_.End(slice, block),
                   [&](const RunPart& stored) -> absl::Status {
                     for (const TensorPiece* piece : pieces) {
                       RETURN_IF_ERROR(ForEachOverlap(
                           piece->runs, stored.element, stored.element + stored.elements,
                           [](const RunPart&) { return absl::AlreadyExistsError(""); }));
                     }
                     return absl::OkStatus();
                   });
    return !found_one.ok();
  }

  int64_t CopyBlock(const SliceRecord& slice, size_t block,
                    const std::vector<TensorPiece*>& pieces) {
    const int64_t begin = blocks_.Begin(block);
    int64_t copied = 0;
    const auto copy_stored = [&](const RunPart& stored) {
      for (TensorPiece* piece : pieces) {
        const auto copy = [&](const RunPart& part) {
          const int64_t from = stored.position - begin + part.element - stored.element;
          host_.Write(Scratch(from, part.elements), piece->data, part.position);
          copied += part.elements;
          return absl::OkStatus();
        };
        CHECK_OK(
            ForEachOverlap(piece->runs, stored.element, stored.element + stored.elements, copy));
      }
      return absl::OkStatus();
    };
    CHECK_OK(ForEachRun(slice.runs, begin, blocks_.End(slice, block), copy_stored));
    return copied;
  }

  std::span<std::byte> Scratch(int64_t position, int64_t elements) {
    return std::span(scratch_).subspan(static_cast<size_t>(position * size_),
                                       static_cast<size_t>(elements * size_));
  }

  TensorBlocks blocks_;
  int64_t size_;
  std::vector<std::byte>& scratch_;
  HostAccess host_;
};

absl::Status LoadTensors(FileSystem& files, const Checkpoint& checkpoint,
                         const TensorSetRecord& set, const std::vector<std::vector<size_t>>& wanted,
                         std::vector<TensorPiece>& pieces) {
  const int64_t block_bytes = checkpoint.manifest().block_bytes;
  std::vector<std::byte> scratch(static_cast<size_t>(block_bytes));
  std::unique_ptr<File> file;
  std::string open_path;
  for (size_t i = 0; i < set.tensors.size(); ++i) {
    if (wanted[i].empty()) {
      continue;
    }
    const TensorRecord& record = set.tensors[i];
    const std::string path = absl::StrCat(checkpoint.directory(), "/", record.file);
    if (path != open_path) {
      ASSIGN_OR_RETURN(file, files.Open(path, OpenMode::kRead));
      open_path = path;
    }
    std::vector<TensorPiece*> takers;
    for (const size_t piece : wanted[i]) {
      CHECK(!pieces[piece].data.device().is_meta()) << pieces[piece].name << " has no data";
      takers.push_back(&pieces[piece]);
    }
    TensorLoader loader(
        TensorBlocks(*file, path, checkpoint.TensorBegin(set, record), record, block_bytes),
        scratch);
    RETURN_IF_ERROR(loader.Load(std::move(takers)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPieces(HostGroup& group, const Checkpoint& checkpoint, const std::string& set,
                         const std::vector<TensorPiece>& pieces) {
  const TensorSetRecord* record = checkpoint.FindSet(set);
  if (record == nullptr) {
    return Agree(group, absl::FailedPreconditionError(
                            absl::StrCat(checkpoint.directory(), " has no set \"", set,
                                         "\"; set [optim] as it was when it was saved")));
  }
  absl::StatusOr<std::vector<std::vector<size_t>>> wanted =
      MatchPieces(checkpoint, *record, pieces);
  RETURN_IF_ERROR(Agree(group, wanted.status()));
  return CheckNothingLeftOver(group, checkpoint, *record, *wanted);
}

absl::Status ReadPieces(FileSystem& files, const Checkpoint& checkpoint, const std::string& set,
                        std::vector<TensorPiece>& pieces) {
  const TensorSetRecord* record = checkpoint.FindSet(set);
  CHECK(record != nullptr) << set;
  ASSIGN_OR_RETURN(const std::vector<std::vector<size_t>> wanted,
                   MatchPieces(checkpoint, *record, pieces));
  return LoadTensors(files, checkpoint, *record, wanted, pieces);
}

absl::Status LoadPieces(FileSystem& files, HostGroup& group, const Checkpoint& checkpoint,
                        const std::string& set, std::vector<TensorPiece>& pieces) {
  RETURN_IF_ERROR(CheckPieces(group, checkpoint, set, pieces));
  return Agree(group, ReadPieces(files, checkpoint, set, pieces));
}

}  // namespace panthera
