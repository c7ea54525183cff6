#ifndef PANTHERA_RUNTIME_CHECKPOINT_TENSOR_BLOCKS_H_
#define PANTHERA_RUNTIME_CHECKPOINT_TENSOR_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/manifest.h"

namespace panthera {

// One tensor of a checkpoint as the blocks of its slices (manifest.h), each read whole and
// verified.
class TensorBlocks {
 public:
  // The tensor lies in `file`, which is open for reading at `path`, from byte `tensor_begin` on.
  // Refers to `file` and `record`.
  TensorBlocks(File& file, std::string path, int64_t tensor_begin, const TensorRecord& record,
               int64_t block_bytes);

  const TensorRecord& record() const { return record_; }
  // The positions in the slice at which a block begins and ends.
  int64_t Begin(size_t block) const { return static_cast<int64_t>(block) * block_elements_; }
  int64_t End(const SliceRecord& slice, size_t block) const;

  // Fills the beginning of `buffer`, which has room for a block, with a block of a slice, packed.
  // kDataLoss, naming file and tensor, if it does not have the checksum of the manifest.
  absl::Status Read(const SliceRecord& slice, size_t block, std::span<std::byte> buffer) const;

 private:
  File& file_;
  std::string path_;
  int64_t tensor_begin_;
  const TensorRecord& record_;
  int64_t element_bytes_;
  int64_t block_elements_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_TENSOR_BLOCKS_H_
