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

constexpr int64_t kChunk = 1024;
constexpr int64_t kNormalsPerDraw = 4;
// A chunk need not begin where a draw does.
constexpr size_t kMostDraws = kChunk / kNormalsPerDraw + 1;

// normals[i] = standard normal number first + i of the stream `key`, for i in [0, count), count up
// to kChunk: each draw of four words gives two pairs (Box and Muller, 1958).
void DrawNormals(uint64_t key, int64_t first, int64_t count, double* normals) {
  std::array<double, 2 * kMostDraws> radius;
  std::array<double, 2 * kMostDraws> angle;
  const int64_t first_draw = first / kNormalsPerDraw;
  const int64_t end_draw = CeilDiv(first + count, kNormalsPerDraw);
  for (int64_t draw = first_draw; draw < end_draw; ++draw) {
    const Philox words = Philox4x32(key, static_cast<uint64_t>(draw), 0);
    for (size_t pair = 0; pair < 2; ++pair) {
      // The radius needs a number in (0, 1]: log(0) is infinite.
      const double radius_uniform = (static_cast<double>(words.value[2 * pair]) + 1.0) * 0x1p-32;
      const double angle_uniform = static_cast<double>(words.value[2 * pair + 1]) * 0x1p-32;
      const size_t place = 2 * static_cast<size_t>(draw - first_draw) + pair;
      radius[place] = std::sqrt(-2.0 * std::log(radius_uniform));
      angle[place] = 2.0 * std::numbers::pi * angle_uniform;
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
  ParallelFor(CeilDiv(segment.elements, kChunk), 16, [&](int64_t begin, int64_t end) {
    std::array<double, kChunk> normals = {};
    std::array<float, kChunk> values;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kChunk;
      const int64_t count = std::min(kChunk, segment.elements - first);
      if (spec.init_deviation != 0) {
        DrawNormals(key, segment.param_begin + first, count, normals.data());
      }
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        values[i] = static_cast<float>(spec.init_mean + spec.init_deviation * normals[i]);
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
