#include "model/init.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "model/init_cuda.h"
#include "model/initial_normal.h"
#include "runtime/base/philox.h"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/params/weight_rounding.h"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;

// Where a segment's elements lie. What a storage does not have is null.
struct SegmentPlace {
  WeightStorage storage;
  float* exact;  // kFp32: the values; kBf16PlusFp32: the master copy
  BF16* values;
  uint8_t* remainder;
};

SegmentPlace PlaceOf(const WeightShard& shard, int64_t begin) {
  SegmentPlace place{shard.storage, nullptr, nullptr, nullptr};
  if (shard.storage == WeightStorage::kFp32) {
    place.exact = shard.values.data<float>() + begin;
    return place;
  }
  place.values = shard.values.data<BF16>() + begin;
  if (shard.storage == WeightStorage::kBf16PlusFp32) {
    place.exact = shard.master->data<float>() + begin;
  }
  if (shard.storage == WeightStorage::kBf16Plus8) {
    place.remainder = shard.remainder->data<uint8_t>() + begin;
  }
  return place;
}

// As WriteWeightsToNearest.
__device__ void StoreToNearest(const SegmentPlace& place, int64_t index, float value) {
  if (StoresExactly(place.storage)) {
    place.exact[index] = value;
    if (place.values != nullptr) {
      place.values[index] = BF16(value);
    }
    return;
  }
  const uint32_t pattern =
      RoundToNearest(std::bit_cast<uint32_t>(value), DroppedBits(place.storage));
  if (place.storage == WeightStorage::kBf16) {
    place.values[index].bits = static_cast<uint16_t>(pattern >> 16);
    return;
  }
  const SplitWeight split = SplitTop24(pattern >> 8);
  place.values[index].bits = split.high;
  place.remainder[index] = split.low;
}

// Where a segment's elements lie in the logical tensor: rows of `run` neighbours. The segment is
// the `count` elements from element `skipped` of the first row on.
struct SegmentRows {
  int64_t begin;  // the first row's first element, counted in the logical tensor
  int64_t run;
  int64_t stride;
  int64_t skipped;
  int64_t count;
  int64_t row_draws;  // the most draws that a row's elements can lie in
};

SegmentRows RowsOf(const ShardSegment& segment, const ElementMap& logical) {
  if (logical.is_contiguous()) {
    const int64_t begin = logical(segment.param_begin);
    const int64_t draws =
        CeilDiv(begin + segment.elements, kNormalsPerDraw) - begin / kNormalsPerDraw;
    return {begin, segment.elements, 0, 0, segment.elements, draws};
  }
  const int64_t skipped = segment.param_begin % logical.run;
  // A row may begin with the last number of a draw.
  const int64_t draws = CeilDiv(kNormalsPerDraw - 1 + logical.run, kNormalsPerDraw);
  return {logical(segment.param_begin - skipped),
          logical.run,
          logical.stride,
          skipped,
          segment.elements,
          draws};
}

// One thread for each row and draw. A row need not begin or end where a draw does.
__global__ void InitializeKernel(SegmentPlace place, SegmentRows rows, double mean,
                                 double deviation, uint64_t key) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = thread / rows.row_draws;
  const int64_t row_begin = rows.begin + row * rows.stride;
  const int64_t draw = row_begin / kNormalsPerDraw + thread % rows.row_draws;
  const int64_t first = draw * kNormalsPerDraw - row_begin;
  if (first >= rows.run || row * rows.run - rows.skipped >= rows.count) {
    return;
  }
  const Philox words = Philox4x32(key, static_cast<uint64_t>(draw), 0);
#pragma unroll
  for (int i = 0; i < kNormalsPerDraw; ++i) {
    const int64_t column = first + i;
    const int64_t index = row * rows.run + column - rows.skipped;
    if (column >= 0 && column < rows.run && index >= 0 && index < rows.count) {
      const NormalPair pair = PairOf(words, i / 2);
      const double normal =
          pair.radius * (i % 2 == 0 ? std::cos(pair.angle) : std::sin(pair.angle));
      StoreToNearest(place, index, static_cast<float>(mean + deviation * normal));
    }
  }
}

}  // namespace

void InitializeSegment(Stream& stream, const WeightShard& shard, const ShardSegment& segment,
                       const ParamSpec& spec, uint64_t key) {
  const SegmentRows rows = RowsOf(segment, spec.logical_elements());
  const int64_t num_rows = CeilDiv(rows.skipped + rows.count, rows.run);
  Launch(stream, {GridOf(CeilDiv(num_rows * rows.row_draws, int64_t{kThreads})), dim3(kThreads)},
         &InitializeKernel, PlaceOf(shard, segment.shard_begin), rows, spec.init_mean,
         spec.init_deviation, key);
}

}  // namespace panthera::cuda
