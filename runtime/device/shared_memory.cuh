// Shared memory of kernels, declared so that the emulation on the host can watch it.
#ifndef PANTHERA_RUNTIME_DEVICE_SHARED_MEMORY_CUH_
#define PANTHERA_RUNTIME_DEVICE_SHARED_MEMORY_CUH_

#include <cuda_runtime.h>

// PANTHERA_SHARED_ARRAY(float, sums, 32): an array of the block named `sums`, uninitialised.
#if defined(__CUDACC__)
#define PANTHERA_SHARED_ARRAY(type, name, count) __shared__ type name[count]
#else
#define PANTHERA_SHARED_ARRAY(type, name, count) \
  static const char name##_key = 0;              \
  type* const name = static_cast<type*>(         \
      ::simt::BlockRunner::Current().SharedArray(&name##_key, sizeof(type) * (count)))
#endif

namespace panthera {

// The shared memory that the launch asked for, uninitialised, 128-byte aligned. One per block:
// every call returns the same place.
template <typename T>
__device__ T* DynamicShared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
#else
  return static_cast<T*>(::simt::BlockRunner::Current().dynamic_shared());
#endif
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_SHARED_MEMORY_CUH_
