#include "runtime/math/count_above.h"

#include <cstdint>

#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"
#include "runtime/math/cuda_kernels.h"

namespace panthera::cuda {
namespace {

constexpr int64_t kThreads = 256;
// Packs that a thread looks at, so that loads overlap and few blocks meet at the one result.
constexpr int64_t kPacksEach = 8;
// The 64 bits that atomicAdd takes.
using Count = unsigned long long;  // NOLINT(google-runtime-int)

// `total` is 0 at first. Sums of integers depend on no order.
template <typename T, int kPack>
__global__ void CountAboveKernel(float bound, const T* x, int64_t packs, Count* total) {
  PANTHERA_SHARED_ARRAY(unsigned, scratch, kMostWarps);
  using Elements = Pack<T, kPack>;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads * kPacksEach) + threadIdx.x;
  unsigned mine = 0;
#pragma unroll
  for (int64_t step = 0; step < kPacksEach; ++step) {
    const int64_t index = first + step * kThreads;
    if (index < packs) {
      const Elements value = Elements::Load(x + index * kPack);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        mine += fabsf(value.values[i]) > bound ? 1U : 0U;
      }
    }
  }
#pragma unroll
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    mine += __shfl_xor_sync(kWholeWarp, mine, offset);
  }
  mine = CombineWarps(mine, scratch, [](unsigned a, unsigned b) { return a + b; });
  if (threadIdx.x == 0 && mine != 0) {
    atomicAdd(total, static_cast<Count>(mine));
  }
}

}  // namespace

void CountAbove(Stream& stream, float bound, const Tensor& x, Tensor count) {
  static_assert(sizeof(Count) == sizeof(int64_t));
  SetZeroAsync(stream.handle(), count.bytes_data(), count.bytes());
  if (x.elements() == 0) {
    return;
  }
  DispatchPack(x.dtype(), IsPackable(x.elements(), x), [&]<typename T, int kPack>() {
    const int64_t packs = x.elements() / kPack;
    Launch(stream, {GridOf(CeilDiv(packs, kThreads * kPacksEach)), dim3(kThreads)},
           &CountAboveKernel<T, kPack>, bound, x.data<T>(), packs,
           reinterpret_cast<Count*>(count.bytes_data()));
  });
}

}  // namespace panthera::cuda
