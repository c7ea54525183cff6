#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;

__device__ int64_t GlobalThread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

LaunchShape OneThreadEach(int64_t count) {
  return {GridOf(CeilDiv(count, int64_t{kThreads})), dim3(kThreads)};
}

template <typename T, int kPack>
__global__ void AddKernel(const T* a, const T* b, int64_t packs, T* out) {
  using Elements = Pack<T, kPack>;
  const int64_t index = GlobalThread();
  if (index >= packs) {
    return;
  }
  Elements sum = Elements::Load(a + index * kPack);
  const Elements added = Elements::Load(b + index * kPack);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    sum.values[i] += added.values[i];
  }
  sum.Store(out + index * kPack);
}

// `half` is half of a row, a multiple of the pack.
template <typename T, int kPack>
__global__ void SwapHalvesKernel(const T* x, int64_t packs, int64_t half, T* out) {
  using Elements = Pack<T, kPack>;
  const int64_t index = GlobalThread();
  if (index >= packs) {
    return;
  }
  const int64_t element = index * kPack;
  const bool in_first = element % (2 * half) < half;
  Elements::Load(x + element + (in_first ? half : -half)).Store(out + element);
}

// One thread per element of the heads, as if they lay side by side in rows of `columns`.
template <typename T>
__global__ void CopyColumnsKernel(const T* x, int64_t x_stride, int64_t elements, int64_t columns,
                                  int64_t out_stride, T* out) {
  const int64_t index = GlobalThread();
  if (index >= elements) {
    return;
  }
  const int64_t row = index / columns;
  const int64_t column = index % columns;
  out[row * out_stride + column] = x[row * x_stride + column];
}

}  // namespace

void Add(Stream& stream, const Tensor& a, const Tensor& b, Tensor out) {
  DispatchPack(out.dtype(), IsPackable(out.elements(), a, b, out), [&]<typename T, int kPack>() {
    const int64_t packs = out.elements() / kPack;
    Launch(stream, OneThreadEach(packs), &AddKernel<T, kPack>, a.data<T>(), b.data<T>(), packs,
           out.data<T>());
  });
}

void SwapHalves(Stream& stream, const Tensor& x, Tensor out) {
  const int64_t half = x.size(1) / 2;
  DispatchPack(x.dtype(), IsPackable(half, x, out), [&]<typename T, int kPack>() {
    const int64_t packs = x.elements() / kPack;
    Launch(stream, OneThreadEach(packs), &SwapHalvesKernel<T, kPack>, x.data<T>(), packs, half,
           out.data<T>());
  });
}

void CopyHeads(Stream& stream, const Heads& x, Heads out) {
  const int64_t columns = x.heads * x.width;
  const int64_t elements = x.batch * x.tokens * columns;
  DispatchFloat(x.dtype(), [&]<typename T>() {
    Launch(stream, OneThreadEach(elements), &CopyColumnsKernel<T>, x.at<T>(0, 0, 0), x.row_stride(),
           elements, columns, out.row_stride(), out.at<T>(0, 0, 0));
  });
}

}  // namespace panthera::cuda
