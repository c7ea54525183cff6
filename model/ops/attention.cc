#include "model/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/ops/attention_cuda.h"
#include "model/ops/attention_tiles.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

PANTHERA_SIMD float MaxScore(const float* scores, int64_t count) {
  return MaxOf(count, [&](int64_t j) PANTHERA_INLINE { return scores[j]; });
}

// scores[j] <- exp(scale * (scores[j] - max)); returns their sum.
PANTHERA_SIMD double ScoresToExp(float* scores, int64_t count, float max, float scale) {
  return SumTerms(count, [&](int64_t j) PANTHERA_INLINE {
    const float value = Exp((scores[j] - max) * scale);
    scores[j] = value;
    return value;
  });
}

void Narrow(const float* values, int64_t count, BF16* narrow) { StoreRow(values, count, narrow); }

// Values and narrow ones are the same memory in fp32.
void Narrow(const float* /*values*/, int64_t /*count*/, float* /*narrow*/) {}

template <typename T>
PANTHERA_INLINE inline void ScaledRow(const float* row, float factor, int64_t width, T* out) {
  PANTHERA_INDEPENDENT
  for (int64_t c = 0; c < width; ++c) {
    out[c] = static_cast<T>(row[c] * factor);
  }
}
PANTHERA_SIMD void StoreScaled(const float* row, float factor, int64_t width, float* out) {
  ScaledRow(row, factor, width, out);
}
PANTHERA_SIMD void StoreScaled(const float* row, float factor, int64_t width, BF16* out) {
  ScaledRow(row, factor, width, out);
}

struct ForwardArguments {
  AttentionSizes sizes;
  std::span<const AttentionBand> bands;
  Heads v;
  float scale;
  Heads out;
  Tensor lse;
};

// One worker's scratch. In fp32 probabilities overwrite the scores.
struct ForwardScratch {
  Tensor scores;         // [kBlockQueries, columns] kF32
  Tensor probabilities;  // the same in the compute type
  Tensor values;         // [kBlockQueries, D] kF32
};

// A block of neighbouring queries of one head.
struct QueryBlock {
  int64_t b;
  int64_t h;
  int64_t row;
  int64_t rows;
  int64_t first;  // position of `row`
  int64_t last;   // position of its last row
};

class ForwardWorker {
 public:
  ForwardWorker(const ForwardArguments& args, const ForwardScratch& scratch, TileProducts& products)
      : args_(args), scratch_(scratch), products_(products) {}

  void Head(int64_t b, int64_t h) {
    const AttentionSizes& sizes = args_.sizes;
    for (int64_t row = 0; row < sizes.queries; row += kBlockQueries) {
      const int64_t rows = std::min(kBlockQueries, sizes.queries - row);
      const int64_t first = sizes.first_position() + row;
      const QueryBlock block{b, h, row, rows, first, first + rows - 1};
      Scores(block);
      if (!products_.plans()) {
        DispatchFloat(args_.out.dtype(), [&]<typename T>() { Softmax<T>(block); });
      }
      Values(block);
      if (!products_.plans()) {
        DispatchFloat(args_.out.dtype(), [&]<typename T>() { Store<T>(block); });
      }
    }
  }

 private:
  // Calls body(band, keys, column): the band's visible keys have scores from `column` on.
  template <typename Body>
  void ForEachBand(const QueryBlock& block, const Body& body) const {
    int64_t column = 0;
    for (const AttentionBand& band : args_.bands) {
      const IndexRange keys = VisibleKeys(band, block.first, block.last);
      body(band, keys, column);
      column += keys.size();
    }
  }

  Matrix Columns(const Tensor& scores, const QueryBlock& block, int64_t column,
                 int64_t count) const {
    return Matrix::Part(scores, column, block.rows, count, scores.size(1));
  }

  int64_t KvHead(const QueryBlock& block) const { return block.h / args_.sizes.group(); }

  void Scores(const QueryBlock& block) {
    ForEachBand(block, [&](const AttentionBand& band, IndexRange keys, int64_t column) {
      ForEachTile(keys, [&](IndexRange tile) {
        products_.Multiply(
            {Transpose::kNo, HeadRows(band.q, block.b, block.h, block.row, block.rows),
             Transpose::kYes, HeadRows(band.k, block.b, KvHead(block), tile.begin, tile.size()),
             Accumulate::kOverwrite,
             Columns(scratch_.scores, block, column + tile.begin - keys.begin, tile.size())});
      });
    });
  }

  // Turns every row of scores into exp(s - max), zero where the query does not see the key, and
  // keeps the sums: row r's in sums_[r].
  template <typename T>
  void Softmax(const QueryBlock& block) {
    const int64_t stride = scratch_.scores.size(1);
    for (int64_t r = 0; r < block.rows; ++r) {
      const int64_t position = block.first + r;
      float* scores = scratch_.scores.data<float>() + r * stride;
      T* probabilities = scratch_.probabilities.data<T>() + r * stride;
      float max = -std::numeric_limits<float>::infinity();
      ForEachBand(block, [&](const AttentionBand& band, IndexRange keys, int64_t column) {
        const IndexRange seen = VisibleKeys(band, position, position);
        max = std::max(max, MaxScore(scores + column + seen.begin - keys.begin, seen.size()));
      });
      double sum = 0;
      ForEachBand(block, [&](const AttentionBand& band, IndexRange keys, int64_t column) {
        const IndexRange seen = VisibleKeys(band, position, position);
        const int64_t begin = column + seen.begin - keys.begin;
        const int64_t end = begin + seen.size();
        std::fill(scores + column, scores + begin, 0.0F);
        sum += ScoresToExp(scores + begin, seen.size(), max, args_.scale);
        std::fill(scores + end, scores + column + keys.size(), 0.0F);
        Narrow(scores + column, keys.size(), probabilities + column);
      });
      sums_[r] = sum;
      const int64_t queries = args_.sizes.queries;
      args_.lse.data<float>()[(block.b * args_.sizes.heads + block.h) * queries + block.row + r] =
          static_cast<float>(static_cast<double>(max * args_.scale) + std::log(sum));
    }
  }

  void Values(const QueryBlock& block) {
    Accumulate accumulate = Accumulate::kOverwrite;
    ForEachBand(block, [&](const AttentionBand& /*band*/, IndexRange keys, int64_t column) {
      ForEachTile(keys, [&](IndexRange tile) {
        products_.Multiply(
            {Transpose::kNo,
             Columns(scratch_.probabilities, block, column + tile.begin - keys.begin, tile.size()),
             Transpose::kNo, HeadRows(args_.v, block.b, KvHead(block), tile.begin, tile.size()),
             accumulate, Columns(scratch_.values, block, 0, args_.sizes.width)});
        accumulate = Accumulate::kAdd;
      });
    });
  }

  template <typename T>
  void Store(const QueryBlock& block) {
    const int64_t width = args_.sizes.width;
    for (int64_t r = 0; r < block.rows; ++r) {
      StoreScaled(scratch_.values.data<float>() + r * width, static_cast<float>(1 / sums_[r]),
                  width, args_.out.at<T>(block.b, block.row + r, block.h));
    }
  }

  const ForwardArguments& args_;
  const ForwardScratch& scratch_;
  TileProducts& products_;
  double sums_[kBlockQueries];
};

// Rows [worker * rows, (worker + 1) * rows).
Tensor RowsOf(const Tensor& all, int64_t worker, int64_t rows) {
  return all.Slice(worker * rows, (worker + 1) * rows);
}

}  // namespace

void AttentionForward(Context& ctx, std::span<const AttentionBand> bands, const Heads& v,
                      float scale, Heads out, Tensor lse) {
  const ForwardArguments args{CheckAttention(bands, v, out, lse, scale), bands, v, scale, out, lse};
  const OpTimer timer(ctx, {Op::kAttention}, {.flops = 2 * ScoreFlops(bands, args.sizes)});
  const int64_t tasks = args.sizes.batch * args.sizes.heads;
  if (tasks == 0 || args.sizes.queries == 0) {
    return;
  }
  if (ctx.target().is_cuda()) {
    if (!ctx.device().is_meta()) {
      cuda::AttentionForward(ctx.compute(), bands, v, scale, out, lse);
    }
    return;
  }
  const int64_t workers = AttentionWorkers(tasks);
  const int64_t rows = std::min(kBlockQueries, args.sizes.queries);
  const int64_t columns = RoundUp(MostScoreColumns(bands, args.sizes), kSumLanes);
  const Arena::Scope scope(ctx.arena());
  ForwardScratch all;
  all.scores = ctx.arena().Allocate({workers * rows, columns}, DType::kF32, "attention scores");
  all.probabilities = all.scores;
  if (out.dtype() != DType::kF32) {
    all.probabilities =
        ctx.arena().Allocate({workers * rows, columns}, out.dtype(), "attention probabilities");
  }
  all.values =
      ctx.arena().Allocate({workers * rows, args.sizes.width}, DType::kF32, "attention values");
  const auto scratch_of = [&](int64_t worker) {
    return ForwardScratch{RowsOf(all.scores, worker, rows), RowsOf(all.probabilities, worker, rows),
                          RowsOf(all.values, worker, rows)};
  };

  TileProducts plan(ctx);
  const ForwardScratch first = scratch_of(0);
  ForwardWorker(args, first, plan).Head(0, 0);
  const Tensor library = ctx.arena().Allocate({workers, plan.scratch_bytes()}, DType::kU8,
                                              "attention product scratch");
  if (ctx.device().is_meta()) {
    return;
  }
  ParallelFor(workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      const ForwardScratch scratch = scratch_of(worker);
      TileProducts products(ctx, library.Slice(worker, worker + 1));
      ForwardWorker forward(args, scratch, products);
      const IndexRange mine = TasksOf(worker, workers, tasks);
      for (int64_t task = mine.begin; task < mine.end; ++task) {
        forward.Head(task / args.sizes.heads, task % args.sizes.heads);
      }
    }
  });
}

}  // namespace panthera
