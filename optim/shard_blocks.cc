#include "optim/shard_blocks.h"

#include "runtime/base/parallel_for.h"

namespace panthera {
namespace {

// What one task of ParallelFor handles at least.
constexpr int64_t kTaskElements = 16 * 1024;

}  // namespace

void ForEachBlock(const ParameterStore& store, GroupId group,
                  absl::FunctionRef<void(const ShardBlock&)> body) {
  ForEachBlock(store.segments(group), store.layout(group).block_elements, body);
}

void ForEachBlock(std::span<const ShardSegment> segments, int64_t block_elements,
                  absl::FunctionRef<void(const ShardBlock&)> body) {
  const int64_t size = block_elements;
  const int64_t end_element =
      segments.empty() ? 0 : segments.back().shard_begin + segments.back().elements;
  ParallelFor(CeilDiv(end_element, size), CeilDiv(kTaskElements, size),
              [&](int64_t begin, int64_t end) {
                auto segment = std::partition_point(
                    segments.begin(), segments.end(), [&](const ShardSegment& candidate) {
                      return candidate.shard_begin + candidate.elements <= begin * size;
                    });
                for (int64_t index = begin; index < end && segment != segments.end(); ++index) {
                  const int64_t first = index * size;
                  const int64_t segment_end = segment->shard_begin + segment->elements;
                  if (first < segment->shard_begin) {
                    continue;
                  }
                  body({segment->param, index, segment->param_begin + first - segment->shard_begin,
                        first, std::min(size, segment_end - first)});
                  if (first + size >= segment_end) {
                    ++segment;
                  }
                }
              });
}

}  // namespace panthera
