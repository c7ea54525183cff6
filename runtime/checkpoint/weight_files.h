// The weights of a model in a directory that other programs may have written: what transformers
// writes, and our own checkpoints, which have the same layout.
//
//   model.safetensors                               all tensors; or
//   model.safetensors.index.json                    {"weight_map": {tensor: file, ...}, ...} and
//   model-00001-of-0000N.safetensors ...            the files that it names
//   manifest.json                                   of our checkpoints: checksums (manifest.h)
#ifndef PANTHERA_RUNTIME_CHECKPOINT_WEIGHT_FILES_H_
#define PANTHERA_RUNTIME_CHECKPOINT_WEIGHT_FILES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/safetensors.h"

namespace panthera {

inline constexpr char kWeightFileName[] = "model.safetensors";
inline constexpr char kWeightIndexName[] = "model.safetensors.index.json";

// Where a tensor lies.
struct StoredTensor {
  TensorDescription tensor;
  std::string file;   // in the directory
  int64_t begin = 0;  // its first byte in the file
};

// Which tensors there are. Holds no weights and no open file.
class WeightFiles {
 public:
  // Reads the index, if there is one, and the header of every file, and checks that each tensor
  // lies whole in exactly the file that the index names. A directory with a manifest is checked as
  // a checkpoint. Errors name the file, the tensor and what helps. Local.
  static absl::StatusOr<WeightFiles> Open(FileSystem& files, const std::string& directory);

  const std::string& directory() const { return directory_; }
  // Sorted by name; names are distinct.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  // Null if there is none of this name.
  const StoredTensor* Find(const std::string& name) const;
  std::string PathOf(const StoredTensor& tensor) const { return directory_ + "/" + tensor.file; }
  // The checkpoint that this is, if it is one of ours.
  const std::optional<Checkpoint>& checkpoint() const { return checkpoint_; }
  // Whether a checkpoint of ours says that it computed the tensor from others.
  bool IsDerived(const std::string& name) const;

 private:
  absl::Status AddFile(FileSystem& files, const std::string& name);
  absl::Status AddIndexedFiles(FileSystem& files);

  std::string directory_;
  std::vector<StoredTensor> tensors_;
  std::optional<Checkpoint> checkpoint_;
};

// Reads tensors part by part; keeps the file that it read last open.
class WeightReader {
 public:
  // Both must outlive the reader.
  WeightReader(FileSystem& files, const WeightFiles& weights) : files_(files), weights_(weights) {}

  // Fills `bytes` with elements of the tensor, in its own type, from element `begin` on. `bytes`
  // is a whole number of elements, all of which the tensor must have.
  absl::Status Read(const StoredTensor& tensor, int64_t begin, std::span<std::byte> bytes);

  // Of a checkpoint: reads the blocks in which elements [begin, end) lie; kDataLoss, naming file
  // and tensor, if one does not have its checksum. Of other directories: nothing, as they have
  // none.
  absl::Status Verify(const StoredTensor& tensor, int64_t begin, int64_t end);

 private:
  absl::Status OpenFileOf(const StoredTensor& tensor);

  FileSystem& files_;
  const WeightFiles& weights_;
  std::unique_ptr<File> file_;
  std::string open_path_;
  std::vector<std::byte> block_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_WEIGHT_FILES_H_
