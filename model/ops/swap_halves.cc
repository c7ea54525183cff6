#include "model/ops/swap_halves.h"

#include <cstdint>
#include <cstring>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/rows.h"

namespace panthera {

void SwapHalves(Context& ctx, const Tensor& x, Tensor out) {
  CHECK_EQ(x.shape().rank(), 2);
  CHECK_EQ(x.size(1) % 2, 0);
  CHECK_EQ(out.shape(), x.shape());
  CHECK_EQ(out.dtype(), x.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::SwapHalves(ctx.compute(), x, out);
    return;
  }
  const int64_t half_bytes = x.size(1) / 2 * SizeOf(x.dtype());
  ParallelFor(x.size(0), RowGrain(x.size(1)), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const std::byte* from = x.bytes_data() + 2 * n * half_bytes;
      std::byte* to = out.bytes_data() + 2 * n * half_bytes;
      std::memcpy(to, from + half_bytes, static_cast<size_t>(half_bytes));
      std::memcpy(to + half_bytes, from, static_cast<size_t>(half_bytes));
    }
  });
}

}  // namespace panthera
