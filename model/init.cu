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

// One thread per draw. The segment [param_begin, param_begin + count) of the parameter need not
// begin or end where a draw does.
__global__ void InitializeKernel(SegmentPlace place, int64_t param_begin, int64_t count,
                                 double mean, double deviation, uint64_t key) {
  const int64_t draw =
      param_begin / kNormalsPerDraw + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = draw * kNormalsPerDraw - param_begin;
  if (first >= count) {
    return;
  }
  const Philox words = Philox4x32(key, static_cast<uint64_t>(draw), 0);
#pragma unroll
  for (int i = 0; i < kNormalsPerDraw; ++i) {
    const int64_t index = first + i;
    if (index >= 0 && index < count) {
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
  const int64_t draws = CeilDiv(segment.param_begin + segment.elements, kNormalsPerDraw) -
                        segment.param_begin / kNormalsPerDraw;
  Launch(stream, {GridOf(CeilDiv(draws, int64_t{kThreads})), dim3(kThreads)}, &InitializeKernel,
         PlaceOf(shard, segment.shard_begin), segment.param_begin, segment.elements, spec.init_mean,
         spec.init_deviation, key);
}

}  // namespace panthera::cuda
