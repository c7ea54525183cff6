#include "runtime/checkpoint/tensor_blocks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checksum.h"

namespace panthera {

TensorBlocks::TensorBlocks(File& file, std::string path, int64_t tensor_begin,
                           const TensorRecord& record, int64_t block_bytes)
    : file_(file),
      path_(std::move(path)),
      tensor_begin_(tensor_begin),
      record_(record),
      element_bytes_(SizeOf(record.tensor.dtype)),
      block_elements_(block_bytes / element_bytes_) {}

int64_t TensorBlocks::End(const SliceRecord& slice, size_t block) const {
  return std::min(Begin(block) + block_elements_, slice.runs.elements());
}

absl::Status TensorBlocks::Read(const SliceRecord& slice, size_t block,
                                std::span<std::byte> buffer) const {
  const int64_t begin = Begin(block);
  const int64_t end = End(slice, block);
  const auto part = [&](int64_t position, int64_t elements) {
    return buffer.subspan(static_cast<size_t>(position * element_bytes_),
                          static_cast<size_t>(elements * element_bytes_));
  };
  RETURN_IF_ERROR(ForEachRun(slice.runs, begin, end, [&](const RunPart& stored) {
    return file_.ReadAt(tensor_begin_ + stored.element * element_bytes_,
                        part(stored.position - begin, stored.elements));
  }));
  if (Checksum(part(0, end - begin)) != slice.checksums[block]) {
    return absl::DataLossError(absl::StrCat(
        path_, " is damaged: elements of tensor ", record_.tensor.name, " from element ",
        slice.runs.begin, " on (block ", block, ") do not have the checksum of the manifest"));
  }
  return absl::OkStatus();
}

}  // namespace panthera
