#include "runtime/checkpoint/shard_writer.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace panthera {

ShardWriter::ShardWriter(const WeightShard& shard) : shard_(shard) {
  block_.storage = shard.storage;
  block_.values = Allocate(shard.values, values_);
  if (shard.remainder.has_value()) {
    block_.remainder = Allocate(*shard.remainder, remainder_);
  }
  if (shard.master.has_value()) {
    block_.master = Allocate(*shard.master, master_);
  }
}

void ShardWriter::Store(std::span<const float> values, int64_t begin) {
  const auto count = static_cast<int64_t>(values.size());
  CHECK_LE(count, kMostElements);
  WriteWeightsToNearest(block_, 0, count, values.data());
  Copy(block_.values, shard_.values, count, begin);
  if (block_.remainder.has_value()) {
    Copy(*block_.remainder, *shard_.remainder, count, begin);
  }
  if (block_.master.has_value()) {
    Copy(*block_.master, *shard_.master, count, begin);
  }
}

Tensor ShardWriter::Allocate(const Tensor& like, std::vector<std::byte>& memory) {
  const int64_t elements = std::min(kMostElements, like.elements());
  memory.resize(static_cast<size_t>(elements * SizeOf(like.dtype())));
  return {memory.data(), Shape{elements}, like.dtype(), Device{}};
}

void ShardWriter::Copy(const Tensor& from, const Tensor& to, int64_t count, int64_t begin) {
  host_.Write({from.bytes_data(), static_cast<size_t>(count * SizeOf(from.dtype()))}, to, begin);
}

}  // namespace panthera
