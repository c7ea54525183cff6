#include "runtime/math/row_squares.h"

#include <algorithm>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/cuda_kernels.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

double SquaresOf(const Tensor& x, int64_t begin, int64_t count) {
  constexpr int64_t kChunk = 1024;
  float chunk[kChunk];
  double sum = 0;
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t length = std::min(kChunk, count - done);
    LoadRow(x, begin + done, length, chunk);
    for (int64_t i = 0; i < length; ++i) {
      const auto value = static_cast<double>(chunk[i]);
      sum += value * value;
    }
  }
  return sum;
}

}  // namespace

void RowSquares(Context& ctx, const Tensor& x, Tensor squares) {
  CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16) << x.dtype();
  const int64_t rows = squares.elements();
  CHECK_SHAPE(squares, rows);
  CHECK_SHAPE(x, rows, x.size(1));
  CHECK_EQ(squares.dtype(), DType::kF64);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::RowSquares(ctx.compute(), x, squares);
    return;
  }
  const int64_t width = x.size(1);
  double* out = squares.data<double>();
  ParallelFor(rows, RowGrain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      out[row] = SquaresOf(x, row * width, width);
    }
  });
}

}  // namespace panthera
