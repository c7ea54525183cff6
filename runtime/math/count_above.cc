#include "runtime/math/count_above.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/cuda_kernels.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

PANTHERA_SIMD int64_t CountInRow(float bound, const float* row, int64_t count) {
  int64_t above = 0;
  for (int64_t i = 0; i < count; ++i) {
    above += std::fabs(row[i]) > bound ? 1 : 0;
  }
  return above;
}

}  // namespace

void CountAbove(Context& ctx, float bound, const Tensor& x, Tensor count) {
  CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16) << x.dtype();
  CHECK_SHAPE(count, 1);
  CHECK_EQ(count.dtype(), DType::kI64);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::CountAbove(ctx.compute(), bound, x, count);
    return;
  }
  constexpr int64_t kChunk = 4096;
  std::atomic<int64_t> total = 0;
  ParallelFor(x.elements(), RowGrain(1), [&](int64_t begin, int64_t end) {
    float chunk[kChunk];
    int64_t mine = 0;
    for (int64_t first = begin; first < end; first += kChunk) {
      const int64_t length = std::min(kChunk, end - first);
      LoadRow(x, first, length, chunk);
      mine += CountInRow(bound, chunk, length);
    }
    total += mine;
  });
  count.data<int64_t>()[0] = total;
}

}  // namespace panthera
