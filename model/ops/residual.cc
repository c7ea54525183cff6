#include "model/ops/residual.h"

#include <cstdint>

#include "model/ops/rows.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"

namespace panthera {
namespace {

template <typename T>
PANTHERA_INLINE inline void SumOf(const T* a, const T* b, int64_t count, T* out) {
  PANTHERA_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<T>(static_cast<float>(a[i]) + static_cast<float>(b[i]));
  }
}
PANTHERA_SIMD void Sum(const float* a, const float* b, int64_t count, float* out) {
  SumOf(a, b, count, out);
}
PANTHERA_SIMD void Sum(const BF16* a, const BF16* b, int64_t count, BF16* out) {
  SumOf(a, b, count, out);
}

}  // namespace

void Add(Context& ctx, const Tensor& a, const Tensor& b, Tensor out) {
  CHECK_EQ(b.shape(), a.shape());
  CHECK_EQ(out.shape(), a.shape());
  CHECK_EQ(b.dtype(), a.dtype());
  CHECK_EQ(out.dtype(), a.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  DispatchFloat(a.dtype(), [&]<typename T>() {
    ParallelFor(a.elements(), RowGrain(1), [&](int64_t begin, int64_t end) {
      Sum(a.data<T>() + begin, b.data<T>() + begin, end - begin, out.data<T>() + begin);
    });
  });
}

}  // namespace panthera
