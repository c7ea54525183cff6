#include "model/ops/swiglu.h"

#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;

__device__ float Sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

// One thread per pack of `out`.
template <typename T, int kPack>
__global__ void SwiGluKernel(const T* gate_up, int64_t packs, int64_t width, T* out) {
  using Elements = Pack<T, kPack>;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= packs) {
    return;
  }
  const int64_t element = index * kPack;
  const int64_t row = element / width;
  const T* gate = gate_up + element + row * width;
  const Elements g = Elements::Load(gate);
  const Elements u = Elements::Load(gate + width);
  Elements result;
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    result.values[i] = g.values[i] * Sigmoid(g.values[i]) * u.values[i];
  }
  result.Store(out + element);
}

// One thread per pack of `dout`. A thread reads all that it needs before it writes, so dgate_up may
// be gate_up.
template <typename T, int kPack>
__global__ void SwiGluBackwardKernel(const T* dout, const T* gate_up, int64_t packs, int64_t width,
                                     T* dgate_up) {
  using Elements = Pack<T, kPack>;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= packs) {
    return;
  }
  const int64_t element = index * kPack;
  const int64_t row = element / width;
  const int64_t gate = element + row * width;
  const Elements g = Elements::Load(gate_up + gate);
  const Elements u = Elements::Load(gate_up + gate + width);
  const Elements d = Elements::Load(dout + element);
  Elements dgate;
  Elements dup;
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const float sigmoid = Sigmoid(g.values[i]);
    dgate.values[i] = d.values[i] * u.values[i] * sigmoid * (1.0F + g.values[i] * (1.0F - sigmoid));
    dup.values[i] = d.values[i] * g.values[i] * sigmoid;
  }
  dgate.Store(dgate_up + gate);
  dup.Store(dgate_up + gate + width);
}

}  // namespace

void SwiGlu(Stream& stream, const Tensor& gate_up, Tensor out) {
  const int64_t width = out.size(1);
  DispatchPack(out.dtype(), IsPackable(width, gate_up, out), [&]<typename T, int kPack>() {
    const int64_t packs = out.elements() / kPack;
    Launch(stream, {GridOf(CeilDiv(packs, int64_t{kThreads})), dim3(kThreads)},
           &SwiGluKernel<T, kPack>, gate_up.data<T>(), packs, width, out.data<T>());
  });
}

void SwiGluBackward(Stream& stream, const Tensor& dout, const Tensor& gate_up, Tensor dgate_up) {
  const int64_t width = dout.size(1);
  DispatchPack(dout.dtype(), IsPackable(width, dout, gate_up, dgate_up),
               [&]<typename T, int kPack>() {
                 const int64_t packs = dout.elements() / kPack;
                 Launch(stream, {GridOf(CeilDiv(packs, int64_t{kThreads})), dim3(kThreads)},
                        &SwiGluBackwardKernel<T, kPack>, dout.data<T>(), gate_up.data<T>(), packs,
                        width, dgate_up.data<T>());
               });
}

}  // namespace panthera::cuda
