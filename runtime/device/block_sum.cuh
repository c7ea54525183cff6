#ifndef PANTHERA_RUNTIME_DEVICE_BLOCK_SUM_CUH_
#define PANTHERA_RUNTIME_DEVICE_BLOCK_SUM_CUH_

#include <cuda_runtime.h>

namespace panthera {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffU;
inline constexpr int kMostWarps = 32;

// The sum over a warp, in every lane, added pairwise in an order that only lanes determine.
__device__ inline float WarpSum(float value) {
#pragma unroll
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, offset);
  }
  return value;
}

__device__ inline float WarpMax(float value) {
#pragma unroll
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, offset));
  }
  return value;
}

// Of a block of one dimension whose threads are a multiple of a warp. `scratch`: shared,
// [kMostWarps], free again on return. The sum over the block, in every thread, in an order that
// only the number of threads determines. All threads must call it.
__device__ inline float BlockSum(float value, float* scratch) {
  const unsigned thread = threadIdx.x;
  value = WarpSum(value);
  if (thread % kWarpThreads == 0) {
    scratch[thread / kWarpThreads] = value;
  }
  __syncthreads();
  const unsigned warps = blockDim.x / kWarpThreads;
  float total = scratch[0];
  for (unsigned warp = 1; warp < warps; ++warp) {
    total += scratch[warp];
  }
  __syncthreads();
  return total;
}

__device__ inline float BlockMax(float value, float* scratch) {
  const unsigned thread = threadIdx.x;
  value = WarpMax(value);
  if (thread % kWarpThreads == 0) {
    scratch[thread / kWarpThreads] = value;
  }
  __syncthreads();
  const unsigned warps = blockDim.x / kWarpThreads;
  float largest = scratch[0];
  for (unsigned warp = 1; warp < warps; ++warp) {
    largest = fmaxf(largest, scratch[warp]);
  }
  __syncthreads();
  return largest;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_BLOCK_SUM_CUH_
