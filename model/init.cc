#include "model/init.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/init_cuda.h"
#include "model/initial_normal.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/philox.h"
#include "runtime/device/stream.h"
#include "runtime/params/name_hash.h"

namespace panthera {
namespace {

constexpr int64_t kChunk = 1024;
// A chunk need not begin where a draw does.
constexpr size_t kMostDraws = kChunk / kNormalsPerDraw + 1;

// normals[i] = standard normal number first + i of the stream `key`, for i in [0, count), count up
// to kChunk.
void DrawNormals(uint64_t key, int64_t first, int64_t count, double* normals) {
  std::array<double, 2 * kMostDraws> radius;
  std::array<double, 2 * kMostDraws> angle;
  const int64_t first_draw = first / kNormalsPerDraw;
  const int64_t end_draw = CeilDiv(first + count, kNormalsPerDraw);
  for (int64_t draw = first_draw; draw < end_draw; ++draw) {
    const Philox words = Philox4x32(key, static_cast<uint64_t>(draw), 0);
    for (int pair = 0; pair < 2; ++pair) {
      const NormalPair numbers = PairOf(words, pair);
      const auto place = static_cast<size_t>(2 * (draw - first_draw) + pair);
      radius[place] = numbers.radius;
      angle[place] = numbers.angle;
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = first + i;
    const auto place = static_cast<size_t>((index - first_draw * kNormalsPerDraw) / 2);
    normals[i] = radius[place] * (index % 2 == 0 ? std::cos(angle[place]) : std::sin(angle[place]));
  }
}

void FillSegment(const WeightShard& shard, const ShardSegment& segment, const ParamSpec& spec,
                 uint64_t key) {
  const ElementMap logical = spec.logical_elements();
  ParallelFor(CeilDiv(segment.elements, kChunk), 16, [&](int64_t begin, int64_t end) {
    std::array<double, kChunk> normals = {};
    std::array<float, kChunk> values;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kChunk;
      const int64_t count = std::min(kChunk, segment.elements - first);
      if (spec.init_deviation != 0) {
        ForEachNeighbours(logical, segment.param_begin + first, count,
                          [&](int64_t offset, int64_t element, int64_t neighbours) {
                            DrawNormals(key, element, neighbours, normals.data() + offset);
                          });
      }
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        values[i] = static_cast<float>(spec.init_mean + spec.init_deviation * normals[i]);
      }
      WriteWeightsToNearest(shard, segment.shard_begin + first, count, values.data());
    }
  });
}

void InitializeGroup(const ParameterStore& params, GroupId group, int64_t seed) {
  const WeightShard shard = params.shard(group);
  const Device device = shard.values.device();
  if (device.is_meta()) {
    return;
  }
  Stream stream(device);  // waits for its work when it ends
  for (const ShardSegment& segment : params.segments(group)) {
    const ParamSpec& spec = params.spec(segment.param);
    const uint64_t key = HashName(spec.name, static_cast<uint64_t>(seed));
    if (device.is_cuda()) {
      cuda::InitializeSegment(stream, shard, segment, spec, key);
    } else {
      FillSegment(shard, segment, spec, key);
    }
  }
}

}  // namespace

void InitializeShards(ParameterStore& params, int64_t seed) {
  for (int g = 0; g < params.num_groups(); ++g) {
    InitializeGroup(params, GroupId{g}, seed);
  }
}

}  // namespace panthera
