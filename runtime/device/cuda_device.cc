#include "runtime/device/cuda_device.h"

#include <cuda_runtime.h>

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "runtime/device/cuda_check.h"
#include "runtime/device/memory_ledger.h"

namespace panthera {

absl::StatusOr<int> CountCudaDevices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("no GPU can be used: ", cudaGetErrorString(status),
                     "; install NVIDIA's driver, or use device.kind = \"cpu\""));
  }
  if (count == 0) {
    return absl::FailedPreconditionError(
        "no GPU is visible; see CUDA_VISIBLE_DEVICES, or use device.kind = \"cpu\"");
  }
  return count;
}

std::vector<std::string> CudaDeviceIds(int count) {
  std::vector<std::string> ids;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    cudaDeviceProp properties;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, ordinal));
    const absl::string_view uuid(properties.uuid.bytes, sizeof(properties.uuid.bytes));
    ids.push_back(absl::BytesToHexString(uuid));
  }
  return ids;
}

namespace cuda {
namespace {

cudaStream_t Stream(StreamHandle stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t Event(EventHandle event) { return static_cast<cudaEvent_t>(event); }

// Device memory is zeroed on a stream of its own: the default stream would wait for all others.
void ZeroNow(std::byte* memory, int64_t bytes) {
  cudaStream_t stream = nullptr;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream));
  CHECK_CUDA(cudaStreamSynchronize(stream));
  CHECK_CUDA(cudaStreamDestroy(stream));
}

}  // namespace

ComputeCapability CapabilityOf(Device device) {
  ComputeCapability capability{};
  CHECK_CUDA(
      cudaDeviceGetAttribute(&capability.major, cudaDevAttrComputeCapabilityMajor, device.ordinal));
  CHECK_CUDA(
      cudaDeviceGetAttribute(&capability.minor, cudaDevAttrComputeCapabilityMinor, device.ordinal));
  return capability;
}

int64_t FreeBytes(Device device) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  CHECK_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return static_cast<int64_t>(free_bytes);
}

std::string ModelName(Device device) {
  cudaDeviceProp properties{};
  CHECK_CUDA(cudaGetDeviceProperties(&properties, device.ordinal));
  return properties.name;
}

std::byte* AllocateDevice(Device device, int64_t bytes, const std::string& name) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
  CHECK(status == cudaSuccess) << device << " has no " << FormatBytes(bytes) << " for " << name
                               << " (" << cudaGetErrorString(status)
                               << "); `panthera plan --device cuda` shows what is needed";
  ZeroNow(static_cast<std::byte*>(memory), bytes);
  return static_cast<std::byte*>(memory);
}

void FreeDevice(Device device, std::byte* memory) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  CHECK_CUDA(cudaFree(memory));
}

std::byte* AllocatePinned(Device device, int64_t bytes, const std::string& name) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  void* memory = nullptr;
  const cudaError_t status =
      cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
  CHECK(status == cudaSuccess) << "no " << FormatBytes(bytes) << " of pinned host memory for "
                               << name << " (" << cudaGetErrorString(status)
                               << "); see `ulimit -l`";
  std::memset(memory, 0, static_cast<size_t>(bytes));
  return static_cast<std::byte*>(memory);
}

void FreePinned(std::byte* memory) { CHECK_CUDA(cudaFreeHost(memory)); }

StreamHandle CreateStream(Device device) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  cudaStream_t stream = nullptr;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

void DestroyStream(StreamHandle stream) { CHECK_CUDA(cudaStreamDestroy(Stream(stream))); }

void Synchronize(StreamHandle stream) { CHECK_CUDA(cudaStreamSynchronize(Stream(stream))); }

void SynchronizeDevice(Device device) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  CHECK_CUDA(cudaDeviceSynchronize());
}

EventHandle CreateEvent(Device device, Timing timing) {
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  cudaEvent_t event = nullptr;
  CHECK_CUDA(cudaEventCreateWithFlags(
      &event, timing == Timing::kMeasured ? cudaEventDefault : cudaEventDisableTiming));
  return event;
}

void DestroyEvent(EventHandle event) { CHECK_CUDA(cudaEventDestroy(Event(event))); }

void RecordEvent(EventHandle event, StreamHandle stream) {
  CHECK_CUDA(cudaEventRecord(Event(event), Stream(stream)));
}

void WaitForEvent(StreamHandle stream, EventHandle event) {
  CHECK_CUDA(cudaStreamWaitEvent(Stream(stream), Event(event)));
}

void SynchronizeEvent(EventHandle event) { CHECK_CUDA(cudaEventSynchronize(Event(event))); }

bool IsEventDone(EventHandle event) {
  const cudaError_t status = cudaEventQuery(Event(event));
  if (status == cudaErrorNotReady) {
    return false;
  }
  CHECK_CUDA(status);
  return true;
}

float MillisecondsBetween(EventHandle begin, EventHandle end) {
  float milliseconds = 0;
  CHECK_CUDA(cudaEventElapsedTime(&milliseconds, Event(begin), Event(end)));
  return milliseconds;
}

void CopyAsync(StreamHandle stream, std::byte* to, const std::byte* from, int64_t bytes) {
  CHECK_CUDA(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, Stream(stream)));
}

void SetZeroAsync(StreamHandle stream, std::byte* memory, int64_t bytes) {
  CHECK_CUDA(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), Stream(stream)));
}

}  // namespace cuda
}  // namespace panthera
