// What the kernels of cross_entropy.h share: how a block goes through a row of logits.
#ifndef PANTHERA_MODEL_OPS_CROSS_ENTROPY_CUH_
#define PANTHERA_MODEL_OPS_CROSS_ENTROPY_CUH_

#include <cuda_runtime.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include "runtime/base/dtype.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/mma.cuh"
#include "runtime/device/pack.cuh"

namespace panthera::cuda {

// The largest x that was seen, and the sum of exp(x - max) over all of them. Of nothing: the lowest
// float and 0.
struct MaxAndSum {
  float max = std::numeric_limits<float>::lowest();
  float sum = 0;

  template <typename T, int kPack>
  __device__ void See(const Pack<T, kPack>& x) {
    float largest = x.values[0];
#pragma unroll
    for (int i = 1; i < kPack; ++i) {
      largest = fmaxf(largest, x.values[i]);
    }
    if (largest > max) {
      sum *= expf(max - largest);
      max = largest;
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      sum += expf(x.values[i] - max);
    }
  }
};

// What `seen` contributes to a sum whose terms are relative to `max`.
__device__ inline float Rescaled(const MaxAndSum& seen, float max) {
  return seen.sum == 0 ? 0.0F : seen.sum * expf(seen.max - max);
}

__device__ inline MaxAndSum OverWarp(const MaxAndSum& seen) {
  MaxAndSum all;
  all.max = WarpMax(seen.max);
  all.sum = WarpSum(Rescaled(seen, all.max));
  return all;
}

// What all threads of a block have seen, in every thread, with one barrier. `scratch`: shared,
// [kScratch], not free again before the next barrier.
inline constexpr int kScratch = 2 * kMostWarps;
__device__ inline MaxAndSum OverBlock(const MaxAndSum& seen, float* scratch) {
  const unsigned lane = threadIdx.x % kWarpThreads;
  const MaxAndSum own = OverWarp(seen);
  if (lane == 0) {
    scratch[threadIdx.x / kWarpThreads] = own.max;
    scratch[kMostWarps + threadIdx.x / kWarpThreads] = own.sum;
  }
  __syncthreads();
  MaxAndSum warps;
  if (lane < blockDim.x / kWarpThreads) {
    warps.max = scratch[lane];
    warps.sum = scratch[kMostWarps + lane];
  }
  return OverWarp(warps);
}

// exp(x) as precisely as a gradient of type T can hold: the rounding of x * log2(e) is a relative
// error of |x| units round-off of fp32, which vanishes beside that of bf16.
template <typename T>
__device__ float ExpForGradient(float x) {
  if constexpr (std::is_same_v<T, BF16>) {
    constexpr float kLog2E = 0x1.715476p+0F;
    return FastExp2(x * kLog2E);
  } else {
    return expf(x);
  }
}

// A pack of logits that begins at `v` for the sum: what must not count becomes -infinity.
template <typename T, int kPack>
__device__ void LeaveOut(unsigned v, unsigned target, unsigned vocab_size, Pack<T, kPack>& x) {
  if (target - v >= kPack && v + kPack <= vocab_size) {
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const unsigned at = v + static_cast<unsigned>(i);
    x.values[i] = at == target || at >= vocab_size ? -INFINITY : x.values[i];
  }
}

// The packs of a row that a thread has; `at` may lie in one of them, which is then this thread's.
template <int kPack>
struct ThreadPacks {
  unsigned begin = threadIdx.x * kPack;
  unsigned step = blockDim.x * kPack;

  __device__ bool Hold(unsigned at) const { return at / kPack % blockDim.x == threadIdx.x; }
};

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_CROSS_ENTROPY_CUH_
