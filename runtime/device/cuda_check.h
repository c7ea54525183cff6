#ifndef PANTHERA_RUNTIME_DEVICE_CUDA_CHECK_H_
#define PANTHERA_RUNTIME_DEVICE_CUDA_CHECK_H_

#include <cuda_runtime.h>

#include "runtime/base/check.h"

// Aborts with CUDA's message if a call to its runtime failed. An error of a kernel that ran earlier
// shows at the next call.
#define CHECK_CUDA(call)                                                                        \
  do {                                                                                          \
    const cudaError_t cuda_status = (call);                                                     \
    CHECK(cuda_status == cudaSuccess) << #call << ": " << cudaGetErrorName(cuda_status) << ", " \
                                      << cudaGetErrorString(cuda_status);                       \
  } while (false)

#endif  // PANTHERA_RUNTIME_DEVICE_CUDA_CHECK_H_
