#ifndef PANTHERA_RUNTIME_BASE_HOST_DEVICE_H_
#define PANTHERA_RUNTIME_BASE_HOST_DEVICE_H_

// The mark of functions that CUDA kernels and host code share.
#ifdef __CUDACC__
#define PANTHERA_HOST_DEVICE __host__ __device__
#else
#define PANTHERA_HOST_DEVICE
#endif

#endif  // PANTHERA_RUNTIME_BASE_HOST_DEVICE_H_
