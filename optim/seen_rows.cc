#include "optim/seen_rows.h"

#include <algorithm>

#include "optim/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/op_times.h"
#include "runtime/math/vector_ops.h"

namespace panthera {
namespace {

// What one task of ParallelFor handles at least.
constexpr int64_t kTaskWords = 1024;

}  // namespace

void MarkRows(Context& ctx, const Tensor& tokens, int64_t vocabulary, Tensor bits) {
  const OpTimer timer(ctx, {Op::kEmbedding}, {.bytes = Traffic({tokens})});
  CHECK_SHAPE(bits, CeilDiv(vocabulary, kRowsPerWord));
  CHECK_EQ(tokens.dtype(), DType::kI32);
  CHECK_EQ(bits.dtype(), DType::kI32);
  if (ctx.device().is_meta() || tokens.elements() == 0) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::MarkRows(ctx.compute(), tokens, bits);
    return;
  }
  const int32_t* ids = tokens.data<int32_t>();
  int32_t* words = bits.data<int32_t>();
  for (int64_t n = 0; n < tokens.elements(); ++n) {
    CHECK_GE(ids[n], 0);
    CHECK_LT(ids[n], vocabulary);
    words[ids[n] / kRowsPerWord] |= static_cast<int32_t>(1U << (ids[n] % kRowsPerWord));
  }
}

void MergeRows(Context& ctx, const Tensor& gathered, Tensor rows) {
  const OpTimer timer(ctx, {Op::kExchange}, {.bytes = Traffic({gathered, rows})});
  const int64_t ranks = gathered.size(0);
  const int64_t words = CeilDiv(rows.elements(), kRowsPerWord);
  CHECK_SHAPE(gathered, ranks, words);
  CHECK_SHAPE(rows, rows.elements());
  CHECK_EQ(gathered.dtype(), DType::kI32);
  CHECK_EQ(rows.dtype(), DType::kU8);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::MergeRows(ctx.compute(), gathered, rows);
    return;
  }
  const int32_t* bits = gathered.data<int32_t>();
  uint8_t* flags = rows.data<uint8_t>();
  ParallelFor(words, kTaskWords, [&](int64_t begin, int64_t end) {
    for (int64_t word = begin; word < end; ++word) {
      uint32_t merged = 0;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        merged |= static_cast<uint32_t>(bits[rank * words + word]);
      }
      const int64_t first = word * kRowsPerWord;
      const int64_t count = std::min(kRowsPerWord, rows.elements() - first);
      for (int64_t bit = 0; bit < count; ++bit) {
        flags[first + bit] = static_cast<uint8_t>(merged >> bit & 1U);
      }
    }
  });
}

SeenRows::SeenRows(LazyRows lazy_rows, const ParamSpec& table, Context& ctx, MeshAxes axes)
    : ctx_(ctx), axes_(axes) {
  CHECK(lazy_rows != LazyRows::kAuto) << "options must be finished";
  if (lazy_rows == LazyRows::kOff) {
    return;
  }
  const int64_t vocabulary = table.logical_shape()[0];
  const int64_t ranks = axes.data().size();
  const int64_t words = CeilDiv(vocabulary, kRowsPerWord);
  gathered_memory_ =
      axes.data().Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, "seen rows",
                           ranks * words * SizeOf(DType::kI32));
  rows_memory_ =
      Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, "seen rows", vocabulary);
  gathered_ = gathered_memory_.View({ranks, words}, DType::kI32);
  own_ = gathered_.Slice(axes.data().rank(), axes.data().rank() + 1).Reshape({words});
  all_rows_ = rows_memory_.View({vocabulary}, DType::kU8);
  const int64_t first = table.slice.has_value() ? table.slice->first_row : 0;
  rows_ = all_rows_.Slice(first, first + table.shape[0]);
}

void SeenRows::Clear() {
  if (rows_.elements() > 0) {
    SetZero(ctx_, own_);
  }
}

void SeenRows::Mark(const Tensor& tokens) {
  if (rows_.elements() > 0) {
    MarkRows(ctx_, tokens, all_rows_.elements(), own_);
  }
}

void SeenRows::Gather() {
  if (rows_.elements() == 0) {
    return;
  }
  {
    const OpTimer timer(ctx_, {Op::kExchange}, {.bytes = Traffic({own_})});
    axes_.data().AllGather(own_, gathered_, ctx_.compute());
  }
  MergeRows(ctx_, gathered_, all_rows_);
}

}  // namespace panthera
