#ifndef PANTHERA_RUNTIME_DEVICE_BLOCK_SUM_CUH_
#define PANTHERA_RUNTIME_DEVICE_BLOCK_SUM_CUH_

#include <cuda_runtime.h>

namespace panthera {

inline constexpr int kWarpThreads = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffU;
inline constexpr int kMostWarps = 32;

// The sum over a warp, in every lane, added pairwise in an order that only lanes determine.
template <typename T>
__device__ inline T WarpSum(T value) {
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

// combine(combine(first warp's, second's), ...) over a block of one dimension whose threads are a
// multiple of a warp, `value` being the result of the thread's warp. `scratch`: shared,
// [kMostWarps], free again on return. In every thread; all threads must call it.
template <typename T, typename Combine>
__device__ inline T CombineWarps(T value, T* scratch, Combine combine) {
  const unsigned thread = threadIdx.x;
  if (thread % kWarpThreads == 0) {
    scratch[thread / kWarpThreads] = value;
  }
  __syncthreads();
  const unsigned warps = blockDim.x / kWarpThreads;
  T result = scratch[0];
  for (unsigned warp = 1; warp < warps; ++warp) {
    result = combine(result, scratch[warp]);
  }
  __syncthreads();
  return result;
}

// The sum and the largest over such a block, in an order that only the number of threads
// determines.
template <typename T>
__device__ inline T BlockSum(T value, T* scratch) {
  return CombineWarps(WarpSum(value), scratch, [](T a, T b) { return a + b; });
}
__device__ inline float BlockMax(float value, float* scratch) {
  return CombineWarps(WarpMax(value), scratch, [](float a, float b) { return fmaxf(a, b); });
}

// The smallest; NaNs are passed over.
__device__ inline double BlockMin(double value, double* scratch) {
#pragma unroll
  for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) {
    value = fmin(value, __shfl_xor_sync(kWholeWarp, value, offset));
  }
  return CombineWarps(value, scratch, [](double a, double b) { return fmin(a, b); });
}

// BlockSum of each of kCount values, in place, with one barrier. `scratch`: shared, [kCount *
// kMostWarps], not free again before the next barrier.
template <int kCount>
__device__ inline void BlockSums(float (&values)[kCount], float* scratch) {
  const unsigned thread = threadIdx.x;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = WarpSum(values[i]);
    if (thread % kWarpThreads == 0) {
      scratch[thread / kWarpThreads * kCount + i] = values[i];
    }
  }
  __syncthreads();
  const unsigned warps = blockDim.x / kWarpThreads;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = scratch[i];
  }
  for (unsigned warp = 1; warp < warps; ++warp) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] += scratch[warp * kCount + i];
    }
  }
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_BLOCK_SUM_CUH_
