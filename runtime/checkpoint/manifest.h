// manifest.json: what a checkpoint consists of, and the checksums that prove it. It is written
// last, so that a directory with a sound manifest is complete.
//
// {
//  "format": "panthera-checkpoint", "version": 1, "program": "0.1.0",
//  "step": 1000,
//  "finite": true,               every number in every tensor is finite
//  "block_bytes": 4194304,
//  "files": [{"name": "state.json", "bytes": 88, "checked_bytes": 88, "checksum": "0f..."}, ...],
//  "sets": [{"name": "model", "derived": ["lm_head.weight"],
//            "tensors": [{"name": "model.norm.weight", "dtype": "F32", "shape": [64],
//                         "file": "model.safetensors",
//                         "slices": [{"runs": [0, 64, 0, 1], "checksums": ["83..."]}]}]}],
//  "checksum": "5a..."           of this object without this key, printed without white space
// }
//
// A *slice* is what one rank wrote of a tensor ("runs": begin, run, stride, count as in
// ElementRuns); every element of a tensor is in exactly one slice. A slice is cut into blocks of
// `block_bytes` (the last one shorter) in packed order; "checksums" has the XXH64 of each. A rank
// can therefore compute its part of the manifest alone, and a reader that needs any part of a
// tensor, however it is sharded now, verifies what it reads by reading whole blocks.
// "format", "version", "program" and "checksum" mean the same in every version, so that a whole
// manifest of another version can be told from a damaged one.
// "checked_bytes" is how much of a file from its beginning "checksum" covers: all of a small file,
// the header of a safetensors file.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_MANIFEST_H_
#define PANTHERA_RUNTIME_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/checkpoint/element_runs.h"
#include "runtime/checkpoint/safetensors.h"

namespace panthera {

inline constexpr int64_t kManifestVersion = 1;
inline constexpr int64_t kChecksumBlockBytes = int64_t{4} << 20;

struct SliceRecord {
  ElementRuns runs;
  std::vector<uint64_t> checksums;  // one per block
};

struct TensorRecord {
  TensorDescription tensor;
  std::string file;
  std::vector<SliceRecord> slices;  // by first element
};

// A set of tensors with distinct names: the weights, or one kind of optimizer state.
struct TensorSetRecord {
  std::string name;
  // Tensors that readers of other programs want and that ours computes from others.
  std::vector<std::string> derived;
  std::vector<TensorRecord> tensors;
};

struct FileRecord {
  std::string name;
  int64_t bytes = 0;
  int64_t checked_bytes = 0;
  uint64_t checksum = 0;
};

struct Manifest {
  int64_t version = kManifestVersion;
  std::string program;
  int64_t step = 0;
  bool finite = true;
  int64_t block_bytes = kChecksumBlockBytes;
  std::vector<FileRecord> files;
  std::vector<TensorSetRecord> sets;
};

// "<set>/<tensor>": names a tensor among those of all sets.
inline std::string TensorKey(const std::string& set, const std::string& tensor) {
  return set + "/" + tensor;
}

// How many blocks a slice of `elements` elements has.
int64_t NumBlocks(int64_t elements, DType dtype, int64_t block_bytes);

// kDataLoss unless the slices hold every element of the tensor exactly once.
absl::Status CheckSlices(const TensorRecord& record);

std::string ManifestJson(const Manifest& manifest);
// Checks everything that the text alone can tell: checksum, version, slices, number of blocks.
// kFailedPrecondition for a sound manifest of another version, naming both; kDataLoss for the rest.
absl::StatusOr<Manifest> ParseManifest(const std::string& text);

// The part of a manifest that one rank knows, as ranks send it to each other: its slices of the
// tensors, with or without checksums, and whether their values are finite.
struct RankRecord {
  bool finite = true;
  std::vector<TensorSetRecord> sets;
};
std::string RankRecordJson(const RankRecord& record);
absl::StatusOr<RankRecord> ParseRankRecord(const std::string& text);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_MANIFEST_H_
