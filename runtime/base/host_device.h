#ifndef PANTHERA_RUNTIME_BASE_HOST_DEVICE_H_
#define PANTHERA_RUNTIME_BASE_HOST_DEVICE_H_

// The marks of functions that CUDA kernels and host code share; the second, of small ones that row
// loops call.
#ifdef __CUDACC__
#define PANTHERA_HOST_DEVICE __host__ __device__
#define PANTHERA_ALWAYS_INLINE __host__ __device__ __forceinline__
#else
#define PANTHERA_HOST_DEVICE
#define PANTHERA_ALWAYS_INLINE __attribute__((always_inline)) inline
#endif

#endif  // PANTHERA_RUNTIME_BASE_HOST_DEVICE_H_
