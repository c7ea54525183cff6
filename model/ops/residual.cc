#include "model/ops/residual.h"

#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {

void Add(Context& ctx, const Tensor& a, const Tensor& b, Tensor out) {
  const OpTimer timer(ctx, {Op::kResidual}, {.bytes = Traffic({a, b, out})});
  CHECK_EQ(b.shape(), a.shape());
  CHECK_EQ(out.shape(), a.shape());
  CHECK_EQ(b.dtype(), a.dtype());
  CHECK_EQ(out.dtype(), a.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::Add(ctx.compute(), a, b, out);
    return;
  }
  DispatchFloat(a.dtype(), [&]<typename T>() {
    ParallelFor(a.elements(), RowGrain(1), [&](int64_t begin, int64_t end) {
      StoreSum(a.data<T>() + begin, b.data<T>() + begin, end - begin, out.data<T>() + begin);
    });
  });
}

}  // namespace panthera
