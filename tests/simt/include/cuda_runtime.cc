#include "tests/simt/include/cuda_runtime.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/simt/emulator/device_state.h"
#include "tests/simt/emulator/launch_log.h"

namespace {

using simt::DeviceState;

constexpr unsigned kMostThreads = 1024;
constexpr size_t kMostDynamicShared = 227 << 10;
constexpr size_t kDeviceBytes = size_t{4} << 30;

DeviceState& State() { return DeviceState::Get(); }

cudaError_t Status() { return State().error().empty() ? cudaSuccess : cudaErrorLaunchFailure; }

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? State().error().c_str() : cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() { return Status(); }
cudaError_t cudaPeekAtLastError() { return Status(); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {"emulated GPU", {}};
  return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int /*device*/) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = 2;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kMostDynamicShared);
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaDeviceSynchronize() {
  ++State().counts().host_waits;
  State().SynchronizeAll();
  return Status();
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = kDeviceBytes;
  *free_bytes = kDeviceBytes - State().used_bytes();
  return Status();
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = State().Allocate(bytes);
  return *pointer == nullptr ? cudaErrorMemoryAllocation : Status();
}

cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) {
    return Status();
  }
  return State().Free(pointer) ? Status() : cudaErrorInvalidValue;
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned /*flags*/) {
  *pointer = State().Allocate(bytes);
  return *pointer == nullptr ? cudaErrorMemoryAllocation : Status();
}

cudaError_t cudaFreeHost(void* pointer) { return cudaFree(pointer); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t stream) {
  State().Enqueue(stream, [=] {
    State().PassTime(1);
    std::memcpy(to, from, bytes);
  });
  return Status();
}

cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  State().Enqueue(stream, [=] {
    State().PassTime(1);
    std::memset(to, byte, bytes);
  });
  return Status();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  *stream = State().NewStream();
  return Status();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  State().DeleteStream(stream);
  return Status();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++State().counts().host_waits;
  State().Synchronize(stream);
  return Status();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  State().Enqueue(stream, event->Waiter());
  return Status();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  *event = State().NewEvent();
  return Status();
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  State().DeleteEvent(event);
  return Status();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream == nullptr) {
    return cudaErrorInvalidValue;
  }
  event->Record(*stream);
  return Status();
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return event->Poll() ? Status() : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++State().counts().host_waits;
  event->Complete();
  return Status();
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (!begin->is_complete() || !end->is_complete()) {
    return cudaErrorNotReady;
  }
  *milliseconds = static_cast<float>(end->milliseconds() - begin->milliseconds());
  return Status();
}

namespace simt {

cudaError_t EnqueueLaunch(const cudaLaunchConfig_t& config, const void* kernel,
                          std::function<void()> thread_body) {
  const dim3& grid = config.gridDim;
  const dim3& block = config.blockDim;
  const size_t threads = size_t{block.x} * block.y * block.z;
  const bool is_valid = threads >= 1 && threads <= kMostThreads && block.z <= 64 && grid.x >= 1 &&
                        grid.y >= 1 && grid.z >= 1 && grid.y <= 65535 && grid.z <= 65535;
  if (!is_valid) {
    return cudaErrorInvalidConfiguration;
  }
  if (config.dynamicSmemBytes > State().dynamic_shared_limit(kernel)) {
    return cudaErrorInvalidValue;
  }
  ++State().counts().launches;
  simt::LogLaunch(kernel);
  Launch launch;
  launch.kernel = "kernel";
  launch.grid = grid;
  launch.block = block;
  launch.dynamic_shared_bytes = config.dynamicSmemBytes;
  launch.order_seed = State().options().order_seed;
  launch.thread_body = std::move(thread_body);
  State().Enqueue(config.stream, [launch = std::move(launch)] {
    if (!State().error().empty()) {
      return;  // after a fault nothing runs any more
    }
    State().PassTime(1);
    const std::string error = RunGrid(launch);
    if (!error.empty()) {
      State().SetError(error);
    }
  });
  return Status();
}

cudaError_t AllowDynamicShared(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kMostDynamicShared) {
    return cudaErrorInvalidValue;
  }
  State().AllowDynamicShared(kernel, static_cast<size_t>(bytes));
  return Status();
}

}  // namespace simt
