#include "model/init.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "runtime/base/parallel_for.h"
#include "runtime/base/philox.h"
#include "runtime/params/name_hash.h"

namespace panthera {
namespace {

// Standard normal number `index` of the stream `key`: each draw of four words gives two pairs.
double Normal(uint64_t key, int64_t index) {
  const Philox draw = Philox4x32(key, static_cast<uint64_t>(index / 4), 0);
  const auto pair = static_cast<size_t>(index % 4 / 2) * 2;
  // The radius needs a number in (0, 1]: log(0) is infinite.
  const double radius_uniform = (static_cast<double>(draw.value[pair]) + 1.0) * 0x1p-32;
  const double angle_uniform = static_cast<double>(draw.value[pair + 1]) * 0x1p-32;
  const double radius = std::sqrt(-2.0 * std::log(radius_uniform));
  const double angle = 2.0 * std::numbers::pi * angle_uniform;
  return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

void FillSegment(const WeightShard& shard, const ShardSegment& segment, const ParamSpec& spec,
                 uint64_t key) {
  constexpr int64_t kChunk = 1024;
  ParallelFor(CeilDiv(segment.elements, kChunk), 16, [&](int64_t begin, int64_t end) {
    std::array<float, kChunk> values;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kChunk;
      const int64_t count = std::min(kChunk, segment.elements - first);
      for (int64_t i = 0; i < count; ++i) {
        const double noise =
            spec.init_deviation == 0
                ? 0
                : spec.init_deviation * Normal(key, segment.param_begin + first + i);
        values[static_cast<size_t>(i)] = static_cast<float>(spec.init_mean + noise);
      }
      WriteWeightsToNearest(shard, segment.shard_begin + first, count, values.data());
    }
  });
}

}  // namespace

void InitializeShards(ParameterStore& params, int64_t seed) {
  for (int g = 0; g < params.num_groups(); ++g) {
    const WeightShard shard = params.shard({g});
    if (shard.values.device().is_meta()) {
      return;
    }
    for (const ShardSegment& segment : params.segments({g})) {
      const ParamSpec& spec = params.spec(segment.param);
      FillSegment(shard, segment, spec, HashName(spec.name, static_cast<uint64_t>(seed)));
    }
  }
}

}  // namespace panthera
