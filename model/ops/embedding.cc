#include "model/ops/embedding.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

// Positions in the order of their tokens, those of one token ascending. `ends` [V] gets the end of
// every token's run in `order`; token v's run begins where that of v - 1 ends.
void SortPositions(const int32_t* tokens, int64_t count, int64_t vocabulary, int64_t* order,
                   int64_t* ends) {
  std::fill_n(ends, vocabulary, 0);
  for (int64_t n = 0; n < count; ++n) {
    CHECK_GE(tokens[n], 0);
    CHECK_LT(tokens[n], vocabulary);
    ++ends[tokens[n]];
  }
  int64_t begin = 0;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const int64_t run = ends[v];
    ends[v] = begin;
    begin += run;
  }
  for (int64_t n = 0; n < count; ++n) {
    order[ends[tokens[n]]++] = n;
  }
}

void ZeroAbsentRows(const int64_t* ends, const Tensor& gradient) {
  const int64_t width = gradient.size(1);
  float* rows = gradient.data<float>();
  ParallelFor(gradient.size(0), RowGrain(width), [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      if (ends[v] == (v == 0 ? 0 : ends[v - 1])) {
        std::fill_n(rows + v * width, width, 0.0F);
      }
    }
  });
}

template <typename T>
void AddRuns(const int32_t* tokens, const int64_t* order, const Tensor& dout,
             const GradientTarget& dtable) {
  const int64_t count = dout.size(0);
  const int64_t width = dout.size(1);
  const T* rows = dout.data<T>();
  float* table = dtable.gradient.data<float>();
  const auto token_at = [&](int64_t i) { return int64_t{tokens[order[i]]}; };
  ParallelFor(count, RowGrain(width), [&](int64_t begin, int64_t end) {
    // A run belongs to the thread in whose range it begins.
    while (begin > 0 && begin < end && token_at(begin) == token_at(begin - 1)) {
      ++begin;
    }
    for (int64_t i = begin; i < end;) {
      const int64_t token = token_at(i);
      float* sum = table + token * width;
      if (dtable.accumulate == Accumulate::kOverwrite) {
        std::fill_n(sum, width, 0.0F);
      }
      for (; i < count && token_at(i) == token; ++i) {
        AddRow(rows + order[i] * width, width, sum);
      }
    }
  });
}

}  // namespace

void EmbeddingForward(Context& ctx, const Tensor& tokens, const Tensor& table, Tensor out) {
  const OpTimer timer(ctx, {Op::kEmbedding}, {.bytes = 2 * Traffic({out})});
  const int64_t count = tokens.elements();
  const int64_t vocabulary = table.size(0);
  const int64_t width = table.size(1);
  CHECK_SHAPE(tokens, count);
  CHECK_SHAPE(table, vocabulary, width);
  CHECK_SHAPE(out, count, width);
  CHECK_EQ(tokens.dtype(), DType::kI32);
  CHECK_EQ(out.dtype(), table.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::EmbeddingForward(ctx.compute(), tokens, table, out);
    return;
  }
  const int32_t* ids = tokens.data<int32_t>();
  const int64_t row_bytes = width * SizeOf(table.dtype());
  ParallelFor(count, RowGrain(width), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      CHECK_GE(ids[n], 0);
      CHECK_LT(ids[n], vocabulary);
      std::memcpy(out.bytes_data() + n * row_bytes, table.bytes_data() + ids[n] * row_bytes,
                  static_cast<size_t>(row_bytes));
    }
  });
}

void EmbeddingBackward(Context& ctx, const Tensor& tokens, const Tensor& dout,
                       const GradientTarget& dtable) {
  const OpTimer timer(ctx, {Op::kEmbedding, OpPass::kBackward}, {.bytes = Traffic({dout})});
  const int64_t count = tokens.elements();
  const int64_t vocabulary = dtable.gradient.size(0);
  CHECK_SHAPE(tokens, count);
  CHECK_SHAPE(dout, count, dtable.gradient.size(1));
  CHECK_EQ(tokens.dtype(), DType::kI32);
  CHECK_EQ(dtable.gradient.dtype(), DType::kF32);
  const Arena::Scope scratch(ctx.arena());
  if (ctx.target().is_cuda()) {
    const Tensor keys =
        ctx.arena().Allocate({cuda::EmbeddingKeys(count)}, DType::kI64, "embedding keys");
    const Tensor partials = ctx.arena().Allocate(
        {CeilDiv(count, cuda::kEmbeddingRun), 2, dout.size(1)}, DType::kF32, "embedding partials");
    if (!ctx.device().is_meta()) {
      cuda::EmbeddingBackward(ctx.compute(), tokens, dout, keys, partials, dtable);
    }
    return;
  }
  const Tensor order = ctx.arena().Allocate({count}, DType::kI64, "embedding order");
  const Tensor ends = ctx.arena().Allocate({vocabulary}, DType::kI64, "embedding runs");
  if (ctx.device().is_meta()) {
    return;
  }
  const int32_t* ids = tokens.data<int32_t>();
  SortPositions(ids, count, vocabulary, order.data<int64_t>(), ends.data<int64_t>());
  if (dtable.accumulate == Accumulate::kOverwrite) {
    ZeroAbsentRows(ends.data<int64_t>(), dtable.gradient);
  }
  DispatchFloat(dout.dtype(),
                [&]<typename T>() { AddRuns<T>(ids, order.data<int64_t>(), dout, dtable); });
}

}  // namespace panthera
