#include "model/ops/swiglu.h"

#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

PANTHERA_INLINE inline float Sigmoid(float x) { return 1.0F / (1.0F + Exp(-x)); }

template <typename T>
PANTHERA_INLINE inline void ForwardOf(const T* gate, const T* up, int64_t width, T* out) {
  PANTHERA_INDEPENDENT
  for (int64_t f = 0; f < width; ++f) {
    const float g = static_cast<float>(gate[f]);
    out[f] = static_cast<T>(g * Sigmoid(g) * static_cast<float>(up[f]));
  }
}
PANTHERA_SIMD void Forward(const float* gate, const float* up, int64_t width, float* out) {
  ForwardOf(gate, up, width, out);
}
PANTHERA_SIMD void Forward(const BF16* gate, const BF16* up, int64_t width, BF16* out) {
  ForwardOf(gate, up, width, out);
}

template <typename T>
PANTHERA_INLINE inline void BackwardOf(const T* dout, const T* gate, const T* up, int64_t width,
                                       T* dgate, T* dup) {
  PANTHERA_INDEPENDENT
  for (int64_t f = 0; f < width; ++f) {
    const float d = static_cast<float>(dout[f]);
    const float g = static_cast<float>(gate[f]);
    const float u = static_cast<float>(up[f]);
    const float sigmoid = Sigmoid(g);
    dgate[f] = static_cast<T>(d * u * sigmoid * (1.0F + g * (1.0F - sigmoid)));
    dup[f] = static_cast<T>(d * (g * sigmoid));
  }
}
PANTHERA_SIMD void Backward(const float* dout, const float* gate, const float* up, int64_t width,
                            float* dgate, float* dup) {
  BackwardOf(dout, gate, up, width, dgate, dup);
}
PANTHERA_SIMD void Backward(const BF16* dout, const BF16* gate, const BF16* up, int64_t width,
                            BF16* dgate, BF16* dup) {
  BackwardOf(dout, gate, up, width, dgate, dup);
}

}  // namespace

void SwiGlu(Context& ctx, const Tensor& gate_up, Tensor out) {
  const OpTimer timer(ctx, {Op::kSwiGlu}, {.bytes = Traffic({gate_up, out})});
  const int64_t rows = out.size(0);
  const int64_t width = out.size(1);
  CHECK_SHAPE(out, rows, width);
  CHECK_SHAPE(gate_up, rows, 2 * width);
  CHECK_EQ(gate_up.dtype(), out.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::SwiGlu(ctx.compute(), gate_up, out);
    return;
  }
  DispatchFloat(out.dtype(), [&]<typename T>() {
    ParallelFor(rows, RowGrain(2 * width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* gate = gate_up.data<T>() + n * 2 * width;
        Forward(gate, gate + width, width, out.data<T>() + n * width);
      }
    });
  });
}

void SwiGluBackward(Context& ctx, const Tensor& dout, const Tensor& gate_up, Tensor dgate_up) {
  const OpTimer timer(ctx, {Op::kSwiGlu, OpPass::kBackward},
                      {.bytes = Traffic({dout, gate_up, dgate_up})});
  const int64_t rows = dout.size(0);
  const int64_t width = dout.size(1);
  CHECK_SHAPE(dout, rows, width);
  CHECK_SHAPE(gate_up, rows, 2 * width);
  CHECK_SHAPE(dgate_up, rows, 2 * width);
  CHECK_EQ(gate_up.dtype(), dout.dtype());
  CHECK_EQ(dgate_up.dtype(), dout.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::SwiGluBackward(ctx.compute(), dout, gate_up, dgate_up);
    return;
  }
  DispatchFloat(dout.dtype(), [&]<typename T>() {
    ParallelFor(rows, RowGrain(4 * width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* gate = gate_up.data<T>() + n * 2 * width;
        T* dgate = dgate_up.data<T>() + n * 2 * width;
        Backward(dout.data<T>() + n * width, gate, gate + width, width, dgate, dgate + width);
      }
    });
  });
}

}  // namespace panthera
