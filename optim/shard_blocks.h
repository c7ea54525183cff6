#ifndef PANTHERA_OPTIM_SHARD_BLOCKS_H_
#define PANTHERA_OPTIM_SHARD_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"

#include "runtime/params/parameter_store.h"

namespace panthera {

// What one parameter holds of one sum block (see kSumBlockElements) of this rank's shard of a
// group.
struct ShardBlock {
  ParamId param;
  int64_t index;        // of the block in the shard
  int64_t param_begin;  // first element, as ShardSegment::param_begin
  int64_t shard_begin;  // the same element, counted in the shard
  int64_t elements;     // up to GroupLayout::block_elements; padding is left out
};

// Calls body(block) once for each block of this rank's shard that holds parameter elements, from
// several threads at once. Blocks of padding alone are left out.
void ForEachBlock(const ParameterStore& store, GroupId group,
                  absl::FunctionRef<void(const ShardBlock&)> body);
// The same for other segments of a group with blocks of `block_elements`, such as group_segments.
void ForEachBlock(std::span<const ShardSegment> segments, int64_t block_elements,
                  absl::FunctionRef<void(const ShardBlock&)> body);

// Blocks can be long rows; loops go through them in chunks that fit into a few kilobytes of stack.
// Interleaved sums (SumTerms) continue from chunk to chunk as if there were none.
inline constexpr int64_t kChunkElements = 1024;

// Calls body(offset, count) for the consecutive chunks of [0, elements).
template <typename Body>
void ForEachChunk(int64_t elements, const Body& body) {
  for (int64_t offset = 0; offset < elements; offset += kChunkElements) {
    body(offset, std::min(kChunkElements, elements - offset));
  }
}

}  // namespace panthera

#endif  // PANTHERA_OPTIM_SHARD_BLOCKS_H_
