// Stands in for CUDA's runtime header where CUDA sources are compiled by a host compiler to run
// under the emulation. Declares what Panthera uses of it; names, values and meanings are those of
// NVIDIA's CUDA Runtime API and CUDA C++ Programming Guide.
#ifndef PANTHERA_TESTS_SIMT_INCLUDE_CUDA_RUNTIME_H_
#define PANTHERA_TESTS_SIMT_INCLUDE_CUDA_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>

#include "tests/simt/emulator/block_runner.h"
#include "tests/simt/emulator/vector_types.h"
#include "tests/simt/include/device_functions.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

namespace simt {

// A component of threadIdx and its like: reads as CUDA's unsigned, in the thread that reads it.
template <typename Place, unsigned uint3::*kMember>
struct Component {
  operator unsigned() const { return Place::Get().*kMember; }
};
template <typename Place, unsigned dim3::*kMember>
struct SizeComponent {
  operator unsigned() const { return Place::Get().*kMember; }
};
template <typename Place>
struct IndexVariable {
  Component<Place, &uint3::x> x;
  Component<Place, &uint3::y> y;
  Component<Place, &uint3::z> z;
};
template <typename Place>
struct SizeVariable {
  SizeComponent<Place, &dim3::x> x;
  SizeComponent<Place, &dim3::y> y;
  SizeComponent<Place, &dim3::z> z;
};
struct ThreadIndex {
  static uint3 Get() { return BlockRunner::Current().thread().index; }
};
struct BlockIndex {
  static uint3 Get() { return BlockRunner::Current().block_index(); }
};
struct BlockSize {
  static dim3 Get() { return BlockRunner::Current().launch().block; }
};
struct GridSize {
  static dim3 Get() { return BlockRunner::Current().launch().grid; }
};

}  // namespace simt

inline constexpr simt::IndexVariable<simt::ThreadIndex> threadIdx{};
inline constexpr simt::IndexVariable<simt::BlockIndex> blockIdx{};
inline constexpr simt::SizeVariable<simt::BlockSize> blockDim{};
inline constexpr simt::SizeVariable<simt::GridSize> gridDim{};

namespace simt {
class Stream;
class Event;
}  // namespace simt

using cudaStream_t = simt::Stream*;
using cudaEvent_t = simt::Event*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0;
inline constexpr unsigned cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocDefault = 0;

const char* cudaGetErrorName(cudaError_t error);
// Of cudaErrorLaunchFailure: what the kernel did wrong, and where.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

// Of all that the real one has.
struct cudaDeviceProp {
  char name[256];
  struct {
    char bytes[16];
  } uuid;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);

cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
// In emulated time, of which a kernel, a copy and a fill take a millisecond each.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace simt {

// Checks the launch as CUDA does, and enqueues it.
cudaError_t EnqueueLaunch(const cudaLaunchConfig_t& config, const void* kernel,
                          std::function<void()> thread_body);
cudaError_t AllowDynamicShared(const void* kernel, int bytes);

}  // namespace simt

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return simt::EnqueueLaunch(
      *config, reinterpret_cast<const void*>(kernel),
      // Parameters are copied when the kernel is launched, once.
      [kernel, ... copies = static_cast<Parameters>(arguments)] { kernel(copies...); });
}

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute /*attribute*/, int value) {
  return simt::AllowDynamicShared(reinterpret_cast<const void*>(kernel), value);
}

#endif  // PANTHERA_TESTS_SIMT_INCLUDE_CUDA_RUNTIME_H_
