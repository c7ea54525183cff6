#include "model/ops/heads.h"

#include <cstring>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"

namespace panthera {

Heads::Heads(const Tensor& x) {
  CHECK_EQ(x.shape().rank(), 4) << "heads are [B, T, heads, width] or columns of a matrix";
  batch = x.size(0);
  tokens = x.size(1);
  heads = x.size(2);
  width = x.size(3);
  first_column = 0;
  matrix = x.Reshape({batch * tokens, heads * width});
}

Heads Heads::Columns(const Tensor& matrix, int64_t batch, int64_t first_column, int64_t heads,
                     int64_t width) {
  CHECK_EQ(matrix.shape().rank(), 2);
  CHECK_GE(batch, 1);
  CHECK_EQ(matrix.size(0) % batch, 0);
  CHECK_GE(first_column, 0);
  CHECK_LE(first_column + heads * width, matrix.size(1));
  Heads columns;
  columns.matrix = matrix;
  columns.batch = batch;
  columns.tokens = matrix.size(0) / batch;
  columns.heads = heads;
  columns.width = width;
  columns.first_column = first_column;
  return columns;
}

void CopyHeads(Context& ctx, const Heads& x, Heads out) {
  CheckHeads(out, x.batch, x.tokens, x.heads, x.width);
  CHECK_EQ(out.dtype(), x.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::CopyHeads(ctx.compute(), x, out);
    return;
  }
  const int64_t element_bytes = SizeOf(x.dtype());
  const auto row_bytes = static_cast<size_t>(x.heads * x.width * element_bytes);
  ParallelFor(x.batch * x.tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(out.matrix.bytes_data() + out.offset(0, row, 0) * element_bytes,
                  x.matrix.bytes_data() + x.offset(0, row, 0) * element_bytes, row_bytes);
    }
  });
}

void CheckHeads(const Heads& x, int64_t batch, int64_t tokens, int64_t heads, int64_t width) {
  CHECK_EQ(x.batch, batch);
  CHECK_EQ(x.tokens, tokens);
  CHECK_EQ(x.heads, heads);
  CHECK_EQ(x.width, width);
}

}  // namespace panthera
