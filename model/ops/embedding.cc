#include "model/ops/embedding.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

constexpr int64_t kOfOthers = -1;

// The row of a slice, of which there are `rows`, that a token has, or kOfOthers.
int64_t RowOf(int32_t token, const VocabularySlice& slice, int64_t rows) {
  CHECK_GE(token, 0);
  CHECK_LT(token, slice.vocabulary);
  const int64_t row = token - slice.first;
  return row >= 0 && row < rows ? row : kOfOthers;
}

// Positions of the tokens in the slice, in the order of their rows, those of one row ascending.
// `ends` [rows] gets the end of every row's run in `order`; row v's run begins where that of v - 1
// ends. Returns the number of these positions.
int64_t SortPositions(const int32_t* tokens, int64_t count, const VocabularySlice& slice,
                      int64_t rows, int64_t* order, int64_t* ends) {
  std::fill_n(ends, rows, 0);
  for (int64_t n = 0; n < count; ++n) {
    const int64_t row = RowOf(tokens[n], slice, rows);
    if (row != kOfOthers) {
      ++ends[row];
    }
  }
  int64_t begin = 0;
  for (int64_t v = 0; v < rows; ++v) {
    const int64_t run = ends[v];
    ends[v] = begin;
    begin += run;
  }
  for (int64_t n = 0; n < count; ++n) {
    const int64_t row = RowOf(tokens[n], slice, rows);
    if (row != kOfOthers) {
      order[ends[row]++] = n;
    }
  }
  return begin;
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

// Adds the gradients at the first `count` positions of `order`.
template <typename T>
void AddRuns(const int32_t* tokens, int64_t first_token, const int64_t* order, int64_t count,
             const Tensor& dout, const GradientTarget& dtable) {
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
      float* sum = table + (token - first_token) * width;
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

void EmbeddingForward(Context& ctx, const Tensor& tokens, const Tensor& table,
                      const VocabularySlice& slice, Tensor out) {
  const OpTimer timer(ctx, {Op::kEmbedding}, {.bytes = 2 * Traffic({out})});
  const int64_t count = tokens.elements();
  const int64_t rows = table.size(0);
  const int64_t width = table.size(1);
  CHECK_SHAPE(tokens, count);
  CHECK_SHAPE(table, rows, width);
  CHECK_GE(slice.first, 0);
  CHECK_SHAPE(out, count, width);
  CHECK_EQ(tokens.dtype(), DType::kI32);
  CHECK_EQ(out.dtype(), table.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::EmbeddingForward(ctx.compute(), tokens, table, slice.first, out);
    return;
  }
  const int32_t* ids = tokens.data<int32_t>();
  const int64_t row_bytes = width * SizeOf(table.dtype());
  ParallelFor(count, RowGrain(width), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t row = RowOf(ids[n], slice, rows);
      std::byte* const place = out.bytes_data() + n * row_bytes;
      if (row == kOfOthers) {
        std::memset(place, 0, static_cast<size_t>(row_bytes));
      } else {
        std::memcpy(place, table.bytes_data() + row * row_bytes, static_cast<size_t>(row_bytes));
      }
    }
  });
}

void EmbeddingBackward(Context& ctx, const Tensor& tokens, const Tensor& dout,
                       const VocabularySlice& slice, const GradientTarget& dtable) {
  const OpTimer timer(ctx, {Op::kEmbedding, OpPass::kBackward}, {.bytes = Traffic({dout})});
  const int64_t count = tokens.elements();
  const int64_t rows = dtable.gradient.size(0);
  CHECK_SHAPE(tokens, count);
  CHECK_SHAPE(dout, count, dtable.gradient.size(1));
  CHECK_EQ(tokens.dtype(), DType::kI32);
  CHECK_EQ(dtable.gradient.dtype(), DType::kF32);
  CHECK_GE(slice.first, 0);
  const Arena::Scope scratch(ctx.arena());
  if (ctx.target().is_cuda()) {
    const Tensor keys =
        ctx.arena().Allocate({cuda::EmbeddingKeys(count)}, DType::kI64, "embedding keys");
    const Tensor partials = ctx.arena().Allocate(
        {CeilDiv(count, cuda::kEmbeddingRun), 2, dout.size(1)}, DType::kF32, "embedding partials");
    if (!ctx.device().is_meta()) {
      cuda::EmbeddingBackward(ctx.compute(), tokens, dout, keys, partials, slice.first, dtable);
    }
    return;
  }
  const Tensor order = ctx.arena().Allocate({count}, DType::kI64, "embedding order");
  const Tensor ends = ctx.arena().Allocate({rows}, DType::kI64, "embedding runs");
  if (ctx.device().is_meta()) {
    return;
  }
  const int32_t* ids = tokens.data<int32_t>();
  const int64_t own_count =
      SortPositions(ids, count, slice, rows, order.data<int64_t>(), ends.data<int64_t>());
  if (dtable.accumulate == Accumulate::kOverwrite) {
    ZeroAbsentRows(ends.data<int64_t>(), dtable.gradient);
  }
  DispatchFloat(dout.dtype(), [&]<typename T>() {
    AddRuns<T>(ids, slice.first, order.data<int64_t>(), own_count, dout, dtable);
  });
}

}  // namespace panthera
