// How kernels walk this rank's shard of a group: sum block by sum block, each looking up which
// parameter it belongs to. The segments travel as a kernel's argument, so no table lies in memory.
#ifndef PANTHERA_OPTIM_SEGMENT_BATCH_CUH_
#define PANTHERA_OPTIM_SEGMENT_BATCH_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "optim/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/params/parameter_store.h"
#include "runtime/params/weight_rounding.h"

namespace panthera::cuda {

// A ShardSegment and what kernels need to know of its parameter.
struct KernelSegment {
  int64_t shard_begin;
  int64_t param_begin;
  int64_t elements;
  int64_t param_elements;  // of the whole logical tensor
  ElementMap logical;      // from the parameter's elements to those of the logical tensor
  uint64_t rounding_key;
  float decay;
  int32_t param;
  int32_t place;  // of the parameter in its group
  ParamKind kind;
};

// As many as fit into the 4 KiB of a kernel's arguments, beside others.
inline constexpr int kMostSegments = 40;

inline constexpr int64_t kMost32Bits = std::numeric_limits<uint32_t>::max();

// Consecutive segments of a shard; kernels run over the sum blocks [first_block, first_block +
// num_blocks) of the shard, of which some may hold padding alone.
struct SegmentBatch {
  int64_t block_elements;
  int64_t first_block;
  int64_t num_blocks;
  int32_t count;
  KernelSegment segments[kMostSegments];
};

// What a parameter holds of one sum block; as ShardBlock.
struct KernelBlock {
  const KernelSegment* segment = nullptr;  // null: padding alone
  int64_t param_begin = 0;
  int64_t shard_begin = 0;
  int64_t elements = 0;
  int64_t logical_begin = 0;  // the logical element that the first one is
  uint32_t run_begin = 0;     // the first one, counted in its run of KernelSegment::logical
};

// Sum block `index` of the shard.
__device__ inline KernelBlock FindBlock(const SegmentBatch& batch, int64_t index) {
  const int64_t first = index * batch.block_elements;
  // The last segment that begins at or before the block.
  int low = 0;
  int high = batch.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (batch.segments[middle].shard_begin <= first) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const KernelSegment& segment = batch.segments[low];
  const int64_t offset = first - segment.shard_begin;
  if (offset < 0 || offset >= segment.elements) {
    return {};
  }
  const int64_t left = segment.elements - offset;
  const int64_t begin = segment.param_begin + offset;
  const ElementMap& logical = segment.logical;
  return {&segment,       begin,
          first,          left < batch.block_elements ? left : batch.block_elements,
          logical(begin), logical.stride == 0 ? 0 : static_cast<uint32_t>(begin % logical.run)};
}

// The logical element that element `offset` of a block is.
__device__ inline int64_t LogicalElement(const KernelBlock& block, int64_t offset) {
  const ElementMap& logical = block.segment->logical;
  int64_t element = block.logical_begin + offset;
  if (logical.stride != 0) {
    // 32 bits, as ForEachSegmentBatch checks: long divisions take many registers.
    const uint32_t runs =
        (block.run_begin + static_cast<uint32_t>(offset)) / static_cast<uint32_t>(logical.run);
    element += runs * (logical.stride - logical.run);
  }
  return element;
}

// Whether packs of `pack` elements, counted from the beginning of each block, begin at multiples of
// `pack` in the shard and are whole draws of random words.
inline bool PacksAreDraws(const SegmentBatch& batch, WeightStorage storage, int64_t pack) {
  const auto fits = [pack](const KernelSegment& segment) {
    const ElementMap& logical = segment.logical;
    return logical.begin % kWordsPerDraw == 0 && logical.stride % kWordsPerDraw == 0 &&
           (logical.is_contiguous() || logical.run % pack == 0);
  };
  return batch.block_elements % pack == 0 &&
         (StoresExactly(storage) ||
          std::all_of(batch.segments, batch.segments + batch.count, fits));
}

// Calls launch(batch) for batches that cover `segments` of a group: those of its shard or others.
template <typename Launcher>
void ForEachSegmentBatch(const ParameterStore& store, GroupId group,
                         std::span<const ShardSegment> segments, RuleOf rule_of,
                         const Launcher& launch) {
  const GroupLayout& layout = store.layout(group);
  for (size_t begin = 0; begin < segments.size(); begin += kMostSegments) {
    const size_t count = std::min(segments.size() - begin, size_t{kMostSegments});
    SegmentBatch batch{};
    batch.block_elements = layout.block_elements;
    batch.count = static_cast<int32_t>(count);
    for (size_t i = 0; i < count; ++i) {
      const ShardSegment& segment = segments[begin + i];
      const ParamSpec& spec = store.spec(segment.param);
      const ParamRule rule = rule_of(segment.param);
      const ElementMap logical = spec.logical_elements();
      CHECK(logical.is_contiguous() || logical.run + layout.block_elements <= kMost32Bits)
          << spec.name << " has rows of " << logical.run;
      const auto place = std::find(layout.params.begin(), layout.params.end(), segment.param);
      batch.segments[i] = {.shard_begin = segment.shard_begin,
                           .param_begin = segment.param_begin,
                           .elements = segment.elements,
                           .param_elements = spec.logical_shape().elements(),
                           .logical = logical,
                           .rounding_key = rule.rounding_key,
                           .decay = rule.decay,
                           .param = segment.param.index,
                           .place = static_cast<int32_t>(place - layout.params.begin()),
                           .kind = spec.kind};
    }
    const KernelSegment& last = batch.segments[count - 1];
    batch.first_block = batch.segments[0].shard_begin / layout.block_elements;
    batch.num_blocks =
        CeilDiv(last.shard_begin + last.elements, layout.block_elements) - batch.first_block;
    launch(batch);
  }
}

// The same for all segments of a group's shard.
template <typename Launcher>
void ForEachSegmentBatch(const ParameterStore& store, GroupId group, RuleOf rule_of,
                         const Launcher& launch) {
  ForEachSegmentBatch(store, group, store.segments(group), rule_of, launch);
}

// For kernels that need no rules.
inline ParamRule NoRule(ParamId) { return {}; }

// Whether FoldInput::left_out or StepInput::left_out names the segment's parameter; `left_out` may
// be null.
__device__ inline bool IsLeftOut(const uint8_t* left_out, const KernelSegment& segment) {
  return left_out != nullptr && left_out[segment.param] != 0;
}

// Whether StepInput::rows, which may be null, leaves out the row that a block is.
__device__ inline bool IsUnseen(const uint8_t* rows, const SegmentBatch& batch,
                                const KernelBlock& block) {
  return rows != nullptr && block.segment->kind == ParamKind::kEmbedding &&
         rows[block.param_begin / batch.block_elements] == 0;
}

// The bytes of an optional tensor: null if it is empty.
template <typename T>
T* DataOrNull(const Tensor& tensor) {
  return tensor.elements() > 0 ? tensor.data<T>() : nullptr;
}

}  // namespace panthera::cuda

#endif  // PANTHERA_OPTIM_SEGMENT_BATCH_CUH_
