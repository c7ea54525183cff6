#include <algorithm>
#include <cstring>
#include <utility>

#include "model/ops/attention.h"
#include "model/ops/attention_cuda.h"
#include "model/ops/attention_tiles.h"
#include "model/ops/rotate_row.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

template <typename T>
PANTHERA_INLINE inline double DotOf(const T* a, const T* b, int64_t width) {
  return SumTerms(width, [&](int64_t c) PANTHERA_INLINE {
    return static_cast<float>(a[c]) * static_cast<float>(b[c]);
  });
}
PANTHERA_SIMD double Dot(const float* a, const float* b, int64_t width) {
  return DotOf(a, b, width);
}
PANTHERA_SIMD double Dot(const BF16* a, const BF16* b, int64_t width) { return DotOf(a, b, width); }

struct RowConstants {
  float scale;
  float lse;
  float delta;  // <dout, out>
};

// p = exp(scale * score - lse), ds = scale * p * (dp - delta)
template <typename T>
PANTHERA_INLINE inline void ScoreGradientOf(const float* scores, const float* dp,
                                            const RowConstants& row, int64_t count, T* p, T* ds) {
  PANTHERA_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) {
    const float probability = Exp(scores[j] * row.scale - row.lse);
    ds[j] = static_cast<T>(row.scale * (probability * (dp[j] - row.delta)));
    p[j] = static_cast<T>(probability);
  }
}
PANTHERA_SIMD void ScoreGradient(const float* scores, const float* dp, const RowConstants& row,
                                 int64_t count, float* p, float* ds) {
  ScoreGradientOf(scores, dp, row, count, p, ds);
}
PANTHERA_SIMD void ScoreGradient(const float* scores, const float* dp, const RowConstants& row,
                                 int64_t count, BF16* p, BF16* ds) {
  ScoreGradientOf(scores, dp, row, count, p, ds);
}

struct BackwardArguments {
  AttentionSizes sizes;
  std::span<const AttentionBand> bands;
  Heads dout;
  Heads v;
  Heads out;
  Tensor lse;
  float scale;
  Heads dq;
  Heads dk;
  Heads dv;
};

// One worker's scratch. In fp32, p overwrites the scores and ds overwrites dp.
struct BackwardScratch {
  Tensor scores;  // [kBlockQueries, kTileKeys] kF32
  Tensor dp;      // likewise
  Tensor p;       // the same in the compute type
  Tensor ds;      // likewise
  Tensor dq;      // [kBlockQueries, D] kF32, of all bands
  Tensor dq_band;
  Tensor dk;  // [bands * Tk, D] kF32, in the rotated basis of each band
  Tensor dv;  // [Tk, D] kF32
};

template <typename T>
class BackwardWorker {
 public:
  BackwardWorker(const BackwardArguments& args, const BackwardScratch& scratch,
                 TileProducts& products)
      : args_(args), scratch_(scratch), products_(products) {}

  // All of key/value head k, with the query heads that read it.
  void KvHead(int64_t b, int64_t k) {
    if (!products_.plans()) {
      std::fill_n(scratch_.dk.data<float>(), scratch_.dk.elements(), 0.0F);
      std::fill_n(scratch_.dv.data<float>(), scratch_.dv.elements(), 0.0F);
    }
    const int64_t group = args_.sizes.group();
    for (int64_t h = k * group; h < (k + 1) * group; ++h) {
      for (int64_t row = 0; row < args_.sizes.queries; row += kBlockQueries) {
        Block({b, h, row, std::min(kBlockQueries, args_.sizes.queries - row)});
      }
    }
    if (!products_.plans()) {
      StoreKeyGradients(b, k);
    }
  }

 private:
  struct QueryBlock {
    int64_t b;
    int64_t h;
    int64_t row;
    int64_t rows;
  };

  int64_t Position(const QueryBlock& block, int64_t r) const {
    return args_.sizes.first_position() + block.row + r;
  }

  void Block(const QueryBlock& block) {
    if (!products_.plans()) {
      ReadRowConstants(block);
      std::fill_n(scratch_.dq.data<float>(), block.rows * args_.sizes.width, 0.0F);
    }
    for (size_t index = 0; index < args_.bands.size(); ++index) {
      const AttentionBand& band = args_.bands[index];
      const IndexRange keys =
          VisibleKeys(band, Position(block, 0), Position(block, block.rows - 1));
      Accumulate accumulate = Accumulate::kOverwrite;
      ForEachTile(keys, [&](IndexRange tile) {
        Tile(block, band, static_cast<int64_t>(index), tile, accumulate);
        accumulate = Accumulate::kAdd;
      });
      if (!products_.plans() && keys.size() > 0) {
        AddBandGradient(block, band);
      }
    }
    if (!products_.plans()) {
      const int64_t width = args_.sizes.width;
      for (int64_t r = 0; r < block.rows; ++r) {
        StoreRow(scratch_.dq.data<float>() + r * width, width,
                 args_.dq.template at<T>(block.b, block.row + r, block.h));
      }
    }
  }

  void ReadRowConstants(const QueryBlock& block) {
    const AttentionSizes& sizes = args_.sizes;
    const float* lse =
        args_.lse.data<float>() + (block.b * sizes.heads + block.h) * sizes.queries + block.row;
    for (int64_t r = 0; r < block.rows; ++r) {
      const double delta =
          Dot(args_.dout.template at<T>(block.b, block.row + r, block.h),
              args_.out.template at<T>(block.b, block.row + r, block.h), sizes.width);
      rows_[r] = {args_.scale, lse[r], static_cast<float>(delta)};
    }
  }

  void Tile(const QueryBlock& block, const AttentionBand& band, int64_t band_index, IndexRange tile,
            Accumulate dq_accumulate) {
    const int64_t width = args_.sizes.width;
    const int64_t k = block.h / args_.sizes.group();
    const auto scores = [&](const Tensor& tensor) {
      return Matrix::Part(tensor, 0, block.rows, tile.size(), kTileKeys);
    };
    const auto of_queries = [&](const Heads& x) {
      return HeadRows(x, block.b, block.h, block.row, block.rows);
    };
    const auto of_keys = [&](const Heads& x) {
      return HeadRows(x, block.b, k, tile.begin, tile.size());
    };
    const auto sums = [&](const Tensor& tensor, int64_t row, int64_t rows) {
      return Matrix::Part(tensor, row * width, rows, width, width);
    };
    const int64_t dk_row = band_index * args_.sizes.keys + tile.begin;

    products_.Multiply({Transpose::kNo, of_queries(band.q), Transpose::kYes, of_keys(band.k),
                        Accumulate::kOverwrite, scores(scratch_.scores)});
    products_.Multiply({Transpose::kNo, of_queries(args_.dout), Transpose::kYes, of_keys(args_.v),
                        Accumulate::kOverwrite, scores(scratch_.dp)});
    if (!products_.plans()) {
      ScoreGradients(block, band, tile);
    }
    products_.Multiply({Transpose::kYes, scores(scratch_.p), Transpose::kNo, of_queries(args_.dout),
                        Accumulate::kAdd, sums(scratch_.dv, tile.begin, tile.size())});
    products_.Multiply({Transpose::kYes, scores(scratch_.ds), Transpose::kNo, of_queries(band.q),
                        Accumulate::kAdd, sums(scratch_.dk, dk_row, tile.size())});
    products_.Multiply({Transpose::kNo, scores(scratch_.ds), Transpose::kNo, of_keys(band.k),
                        dq_accumulate, sums(scratch_.dq_band, 0, block.rows)});
  }

  void ScoreGradients(const QueryBlock& block, const AttentionBand& band, IndexRange tile) {
    for (int64_t r = 0; r < block.rows; ++r) {
      const IndexRange seen =
          Intersection(tile, VisibleKeys(band, Position(block, r), Position(block, r)));
      const int64_t begin = std::min(seen.begin - tile.begin, tile.size());
      const int64_t end = begin + seen.size();
      T* p = scratch_.p.data<T>() + r * kTileKeys;
      T* ds = scratch_.ds.data<T>() + r * kTileKeys;
      ScoreGradient(scratch_.scores.data<float>() + r * kTileKeys + begin,
                    scratch_.dp.data<float>() + r * kTileKeys + begin, rows_[r], seen.size(),
                    p + begin, ds + begin);
      for (T* row : {p, ds}) {
        std::fill(row, row + begin, static_cast<T>(0.0F));
        std::fill(row + end, row + tile.size(), static_cast<T>(0.0F));
      }
    }
  }

  // dq += the band's part, turned back.
  void AddBandGradient(const QueryBlock& block, const AttentionBand& band) {
    for (int64_t r = 0; r < block.rows; ++r) {
      AddTurnedBack(scratch_.dq_band.data<float>() + r * args_.sizes.width, band.q_rotation,
                    block.row + r, scratch_.dq.data<float>() + r * args_.sizes.width);
    }
  }

  // sum += row, turned back by row t of the table. Destroys row.
  void AddTurnedBack(float* row, const std::optional<RotaryTable>& rotation, int64_t t,
                     float* sum) const {
    const int64_t width = args_.sizes.width;
    if (rotation.has_value()) {
      const int64_t pairs = width / 2;
      RotateRow(row, rotation->cos.data<float>() + t * pairs,
                rotation->sin.data<float>() + t * pairs, -1.0F, pairs, row);
    }
    AddRow(row, width, sum);
  }

  void StoreKeyGradients(int64_t b, int64_t k) {
    const int64_t width = args_.sizes.width;
    const int64_t keys = args_.sizes.keys;
    float* sum = scratch_.dq.data<float>();
    for (int64_t j = 0; j < keys; ++j) {
      std::fill_n(sum, width, 0.0F);
      for (size_t index = 0; index < args_.bands.size(); ++index) {
        AddTurnedBack(scratch_.dk.data<float>() + (static_cast<int64_t>(index) * keys + j) * width,
                      args_.bands[index].k_rotation, j, sum);
      }
      StoreRow(sum, width, args_.dk.template at<T>(b, j, k));
      StoreRow(scratch_.dv.data<float>() + j * width, width, args_.dv.template at<T>(b, j, k));
    }
  }

  const BackwardArguments& args_;
  const BackwardScratch& scratch_;
  TileProducts& products_;
  RowConstants rows_[kBlockQueries];
};

// Scratch for all workers, of whom each has an equal part of every tensor's rows.
BackwardScratch AllocateScratch(Context& ctx, const BackwardArguments& args, int64_t workers) {
  Arena& arena = ctx.arena();
  const int64_t width = args.sizes.width;
  const int64_t rows = workers * std::min(kBlockQueries, args.sizes.queries);
  const int64_t keys = workers * args.sizes.keys;
  const DType dtype = args.out.dtype();
  BackwardScratch all;
  all.scores = arena.Allocate({rows, kTileKeys}, DType::kF32, "attention scores");
  all.dp = arena.Allocate({rows, kTileKeys}, DType::kF32, "attention probability gradients");
  all.p = all.scores;
  all.ds = all.dp;
  if (dtype != DType::kF32) {
    all.p = arena.Allocate({rows, kTileKeys}, dtype, "attention probabilities");
    all.ds = arena.Allocate({rows, kTileKeys}, dtype, "attention score gradients");
  }
  all.dq = arena.Allocate({rows, width}, DType::kF32, "attention query gradients");
  all.dq_band = arena.Allocate({rows, width}, DType::kF32, "attention query gradients of a band");
  all.dk = arena.Allocate({static_cast<int64_t>(args.bands.size()) * keys, width}, DType::kF32,
                          "attention key gradients");
  all.dv = arena.Allocate({keys, width}, DType::kF32, "attention value gradients");
  return all;
}

BackwardScratch ScratchOf(const BackwardScratch& all, int64_t worker, int64_t workers) {
  const auto part = [&](const Tensor& tensor) {
    const int64_t rows = tensor.size(0) / workers;
    return tensor.Slice(worker * rows, (worker + 1) * rows);
  };
  return {part(all.scores), part(all.dp),      part(all.p),  part(all.ds),
          part(all.dq),     part(all.dq_band), part(all.dk), part(all.dv)};
}

template <typename T>
void Backward(Context& ctx, const BackwardArguments& args) {
  const int64_t tasks = args.sizes.batch * args.sizes.kv_heads;
  const int64_t workers = AttentionWorkers(tasks);
  const Arena::Scope scope(ctx.arena());
  const BackwardScratch all = AllocateScratch(ctx, args, workers);

  TileProducts plan(ctx);
  const BackwardScratch first = ScratchOf(all, 0, workers);
  BackwardWorker<T>(args, first, plan).KvHead(0, 0);
  const Tensor library = ctx.arena().Allocate({workers, plan.scratch_bytes()}, DType::kU8,
                                              "attention product scratch");
  if (ctx.device().is_meta()) {
    return;
  }
  ParallelFor(workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      const BackwardScratch scratch = ScratchOf(all, worker, workers);
      TileProducts products(ctx, library.Slice(worker, worker + 1));
      BackwardWorker<T> backward(args, scratch, products);
      const IndexRange mine = TasksOf(worker, workers, tasks);
      for (int64_t task = mine.begin; task < mine.end; ++task) {
        backward.KvHead(task / args.sizes.kv_heads, task % args.sizes.kv_heads);
      }
    }
  });
}

void BackwardOnGpu(Context& ctx, const BackwardArguments& args) {
  const AttentionSizes& sizes = args.sizes;
  const Arena::Scope scope(ctx.arena());
  cuda::AttentionBackwardScratch scratch{
      .delta = ctx.arena().Allocate({sizes.batch, sizes.heads, sizes.queries}, DType::kF32,
                                    "attention delta")};
  if (ctx.device().is_meta()) {
    return;
  }
  if (cuda::OverlapsQueries(args.bands, args.dq)) {
    scratch.dq = ctx.arena().Allocate({sizes.batch, sizes.queries, sizes.heads, sizes.width},
                                      args.out.dtype(), "attention query gradient");
  }
  cuda::AttentionBackward(ctx.compute(), args.dout, args.bands, args.v, args.out, args.lse,
                          args.scale, scratch, args.dq, args.dk, args.dv);
}

}  // namespace

void AttentionBackward(Context& ctx, const Heads& dout, std::span<const AttentionBand> bands,
                       const Heads& v, const Heads& out, const Tensor& lse, float scale, Heads dq,
                       Heads dk, Heads dv) {
  const BackwardArguments args{
      CheckAttention(bands, v, out, lse, scale), bands, dout, v, out, lse, scale, dq, dk, dv};
  const AttentionSizes& sizes = args.sizes;
  const OpTimer timer(ctx, {Op::kAttention, OpPass::kBackward},
                      {.flops = 5 * ScoreFlops(bands, sizes)});
  CheckHeads(dout, sizes.batch, sizes.queries, sizes.heads, sizes.width);
  CheckHeads(dq, sizes.batch, sizes.queries, sizes.heads, sizes.width);
  CheckHeads(dk, sizes.batch, sizes.keys, sizes.kv_heads, sizes.width);
  CheckHeads(dv, sizes.batch, sizes.keys, sizes.kv_heads, sizes.width);
  for (const Heads& x : {dout, dq, dk, dv}) {
    CHECK_EQ(x.dtype(), out.dtype());
  }
  if (sizes.batch * sizes.heads == 0 || sizes.queries == 0) {
    return;
  }
  if (ctx.target().is_cuda()) {
    BackwardOnGpu(ctx, args);
    return;
  }
  DispatchFloat(out.dtype(), [&]<typename T>() { Backward<T>(ctx, args); });
}

}  // namespace panthera
