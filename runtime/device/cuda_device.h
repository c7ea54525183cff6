// What the device layer asks of CUDA's runtime. In a build without CUDA these functions abort, and
// CountCudaDevices says why there is no device, so nobody gets that far.
#ifndef PANTHERA_RUNTIME_DEVICE_CUDA_DEVICE_H_
#define PANTHERA_RUNTIME_DEVICE_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "runtime/device/device.h"

namespace panthera {

// The GPUs that this process can use, at least one; else why there is none and what to do.
absl::StatusOr<int> CountCudaDevices();
// By ordinal, the ids of the first `count`: in every process the same for the same GPU, and
// different for all others.
std::vector<std::string> CudaDeviceIds(int count);

namespace cuda {

// Handles of CUDA's runtime, which only its own source file knows by type.
using StreamHandle = void*;
using EventHandle = void*;

enum class Timing : uint8_t { kNone, kMeasured };

// What kind of GPU a device is: {9, 0} is Hopper.
struct ComputeCapability {
  int major;
  int minor;

  bool operator==(const ComputeCapability&) const = default;
};
ComputeCapability CapabilityOf(Device device);

// How much memory of a device no process has taken.
int64_t FreeBytes(Device device);
// What the maker calls this kind of GPU: "NVIDIA H200".
std::string ModelName(Device device);

// Zeroed memory of a device. Aborts with `name` and size when it cannot be had. Blocks the host.
std::byte* AllocateDevice(Device device, int64_t bytes, const std::string& name);
void FreeDevice(Device device, std::byte* memory);
// Zeroed host memory that the device copies from and to without waiting for the host.
std::byte* AllocatePinned(Device device, int64_t bytes, const std::string& name);
void FreePinned(std::byte* memory);

StreamHandle CreateStream(Device device);
void DestroyStream(StreamHandle stream);
void Synchronize(StreamHandle stream);
// Blocks the host until all work of the device is done.
void SynchronizeDevice(Device device);

EventHandle CreateEvent(Device device, Timing timing);
void DestroyEvent(EventHandle event);
void RecordEvent(EventHandle event, StreamHandle stream);
void WaitForEvent(StreamHandle stream, EventHandle event);
void SynchronizeEvent(EventHandle event);
bool IsEventDone(EventHandle event);
// Between two recorded and done events that were created with Timing::kMeasured.
float MillisecondsBetween(EventHandle begin, EventHandle end);

void CopyAsync(StreamHandle stream, std::byte* to, const std::byte* from, int64_t bytes);
void SetZeroAsync(StreamHandle stream, std::byte* memory, int64_t bytes);

}  // namespace cuda
}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_CUDA_DEVICE_H_
