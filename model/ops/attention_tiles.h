// What the forward and the backward pass of attention share: sizes, and which keys a query sees.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_TILES_H_
#define PANTHERA_MODEL_OPS_ATTENTION_TILES_H_

#include <algorithm>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"

#include "model/ops/attention.h"
#include "runtime/base/shape.h"
#include "runtime/math/context.h"
#include "runtime/math/gemm.h"

namespace panthera {

// Scores are computed for at most this many queries and keys at a time: large enough for products
// at full speed, small enough for a tile's scores to stay in the cache.
inline constexpr int64_t kBlockQueries = 128;
inline constexpr int64_t kTileKeys = 512;
// Ranges of keys that fill no tile are cut at a multiple of this, so that few shapes of product
// occur even if the range grows by one key at a time, as in generation.
inline constexpr int64_t kTileStep = 64;

// [begin, end), perhaps empty.
struct IndexRange {
  int64_t begin;
  int64_t end;

  int64_t size() const { return end - begin; }
};

struct AttentionSizes {
  int64_t batch;
  int64_t heads;
  int64_t kv_heads;
  int64_t queries;
  int64_t keys;
  int64_t width;

  int64_t group() const { return heads / kv_heads; }
  // The position of query row 0.
  int64_t first_position() const { return keys - queries; }
};

// Aborts unless the arguments that both passes take fit together.
AttentionSizes CheckAttention(std::span<const AttentionBand> bands, const Heads& v,
                              const Heads& out, const Tensor& lse, float scale);

// The keys of a band that some query at a position in [first, last] sees.
inline IndexRange VisibleKeys(const AttentionBand& band, int64_t first, int64_t last) {
  const int64_t begin = first < band.end ? 0 : first - band.end + 1;
  return {begin, std::max(begin, last - band.begin + 1)};
}

inline IndexRange Intersection(IndexRange a, IndexRange b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// Calls body on the tiles of a range in ascending order.
inline void ForEachTile(IndexRange keys, absl::FunctionRef<void(IndexRange)> body) {
  for (int64_t begin = keys.begin; begin < keys.end;) {
    const int64_t left = std::min(keys.end - begin, kTileKeys);
    const int64_t size = left < kTileStep ? left : left / kTileStep * kTileStep;
    body({begin, begin + size});
    begin += size;
  }
}

// The most columns that the scores of one block of queries have, all bands side by side.
int64_t MostScoreColumns(std::span<const AttentionBand> bands, const AttentionSizes& sizes);

// Floating-point operations of one product over the visible pairs of all heads: of the scores, say.
double ScoreFlops(std::span<const AttentionBand> bands, const AttentionSizes& sizes);

// Rows [first, first + rows) of head (b, h).
inline Matrix HeadRows(const Heads& x, int64_t b, int64_t h, int64_t first, int64_t rows) {
  return Matrix::Part(x.matrix, x.offset(b, first, h), rows, x.width, x.row_stride());
}

// Multiplies with one worker's scratch. Without scratch yet, finds out how much is needed: a worker
// first walks through its products to plan, then to compute.
class TileProducts {
 public:
  explicit TileProducts(Context& ctx) : ctx_(ctx) {}
  TileProducts(Context& ctx, const Tensor& scratch) : ctx_(ctx), scratch_(scratch), plans_(false) {}

  bool plans() const { return plans_; }
  int64_t scratch_bytes() const { return scratch_bytes_; }

  void Multiply(const Product& product) {
    if (plans_) {
      scratch_bytes_ = std::max(scratch_bytes_, GemmScratchBytes(ctx_, product));
    } else {
      GemmInScratch(ctx_, product, scratch_);
    }
  }

 private:
  Context& ctx_;
  Tensor scratch_;
  bool plans_ = true;
  int64_t scratch_bytes_ = 0;
};

// The number of workers among whom `tasks` are shared, each with scratch of its own, and the tasks
// of one of them.
int64_t AttentionWorkers(int64_t tasks);
inline IndexRange TasksOf(int64_t worker, int64_t workers, int64_t tasks) {
  return {tasks * worker / workers, tasks * (worker + 1) / workers};
}

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_ATTENTION_TILES_H_
