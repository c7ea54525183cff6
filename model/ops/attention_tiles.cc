#include "model/ops/attention_tiles.h"

#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"

namespace panthera {
namespace {

void CheckRotation(const std::optional<RotaryTable>& rotation, const Heads& x) {
  if (rotation.has_value()) {
    CHECK_EQ(x.width % 2, 0);
    CHECK_SHAPE(rotation->cos, x.tokens, x.width / 2);
    CHECK_SHAPE(rotation->sin, x.tokens, x.width / 2);
  }
}

}  // namespace

AttentionSizes CheckAttention(std::span<const AttentionBand> bands, const Heads& v,
                              const Heads& out, const Tensor& lse, float scale) {
  const AttentionSizes sizes{.batch = out.batch,
                             .heads = out.heads,
                             .kv_heads = v.heads,
                             .queries = out.tokens,
                             .keys = v.tokens,
                             .width = out.width};
  CHECK_GE(sizes.keys, sizes.queries);
  CHECK_EQ(sizes.heads % sizes.kv_heads, 0) << sizes.heads << " heads, " << sizes.kv_heads;
  CheckHeads(v, sizes.batch, sizes.keys, sizes.kv_heads, sizes.width);
  CHECK_EQ(v.dtype(), out.dtype());
  CHECK_SHAPE(lse, sizes.batch, sizes.heads, sizes.queries);
  CHECK_EQ(lse.dtype(), DType::kF32);
  CHECK_GT(scale, 0.0F);
  CHECK(!bands.empty());
  int64_t next = 0;
  for (const AttentionBand& band : bands) {
    CHECK_EQ(band.begin, next) << "bands must follow one another without gap or overlap from 0 on";
    CHECK_GT(band.end, band.begin);
    next = band.end;
    CheckHeads(band.q, sizes.batch, sizes.queries, sizes.heads, sizes.width);
    CheckHeads(band.k, sizes.batch, sizes.keys, sizes.kv_heads, sizes.width);
    CHECK_EQ(band.q.dtype(), out.dtype());
    CHECK_EQ(band.k.dtype(), out.dtype());
    CheckRotation(band.q_rotation, band.q);
    CheckRotation(band.k_rotation, band.k);
  }
  return sizes;
}

int64_t MostScoreColumns(std::span<const AttentionBand> bands, const AttentionSizes& sizes) {
  int64_t most = 0;
  for (int64_t row = 0; row < sizes.queries; row += kBlockQueries) {
    const int64_t first = sizes.first_position() + row;
    const int64_t last = std::min(first + kBlockQueries, sizes.keys) - 1;
    int64_t columns = 0;
    for (const AttentionBand& band : bands) {
      columns += VisibleKeys(band, first, last).size();
    }
    most = std::max(most, columns);
  }
  return most;
}

double ScoreFlops(std::span<const AttentionBand> bands, const AttentionSizes& sizes) {
  int64_t pairs = 0;
  for (int64_t row = 0; row < sizes.queries; ++row) {
    const int64_t position = sizes.first_position() + row;
    for (const AttentionBand& band : bands) {
      pairs += VisibleKeys(band, position, position).size();
    }
  }
  return 2.0 * static_cast<double>(sizes.batch * sizes.heads * sizes.width) *
         static_cast<double>(pairs);
}

int64_t AttentionWorkers(int64_t tasks) { return std::min<int64_t>(tasks, MaxThreads()); }

}  // namespace panthera
