// How kernels are launched; the only way that Panthera uses.
#ifndef PANTHERA_RUNTIME_DEVICE_LAUNCH_CUH_
#define PANTHERA_RUNTIME_DEVICE_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "runtime/base/check.h"
#include "runtime/device/cuda_check.h"
#include "runtime/device/device.h"
#include "runtime/device/stream.h"

namespace panthera {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes = 0;
};

// A grid of as many blocks as `blocks`, in one dimension.
inline dim3 GridOf(int64_t blocks) {
  CHECK_GE(blocks, 1);
  CHECK_LE(blocks, int64_t{std::numeric_limits<int32_t>::max()});
  return dim3(static_cast<unsigned>(blocks));
}

// A property of a GPU.
inline int64_t AttributeOf(Device device, cudaDeviceAttr attribute) {
  int value = 0;
  CHECK_CUDA(cudaDeviceGetAttribute(&value, attribute, device.ordinal));
  return value;
}
inline int64_t Multiprocessors(Device device) {
  return AttributeOf(device, cudaDevAttrMultiProcessorCount);
}
// As much dynamic shared memory as a block may ask for that has 1 KiB of shared arrays or less.
inline int64_t MostDynamicShared(Device device) {
  return AttributeOf(device, cudaDevAttrMaxSharedMemoryPerBlockOptin) - 1024;
}

// Enqueues kernel(arguments...) on `stream`, which must be of a GPU. Arguments are copied now.
// Aborts if the launch is refused; what goes wrong inside the kernel shows at a later call.
template <typename... Parameters>
void Launch(Stream& stream, const LaunchShape& shape, void (*kernel)(Parameters...),
            std::type_identity_t<Parameters>... arguments) {
  constexpr size_t kSharedWithoutAsking = 48 << 10;
  if (shape.dynamic_shared_bytes > kSharedWithoutAsking) {
    CHECK_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.dynamic_shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.dynamic_shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream.handle());
  CHECK_CUDA(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_LAUNCH_CUH_
