// The device layer's calls to CUDA in a build without it. Nobody has a device to call them with.
#include <cstdlib>

#include "absl/status/status.h"

#include "runtime/base/check.h"
#include "runtime/device/cuda_device.h"

namespace panthera {

absl::StatusOr<int> CountCudaDevices() {
  return absl::UnimplementedError(
      "this program was built without CUDA and computes on CPUs only; build it where nvcc is found "
      "(preset \"cuda\"), or use device.kind = \"cpu\"");
}

namespace {

[[noreturn]] void Absent() {
  CHECK(false) << "this build has no CUDA";
  std::abort();
}

}  // namespace

std::vector<std::string> CudaDeviceIds(int) { Absent(); }

namespace cuda {

ComputeCapability CapabilityOf(Device) { Absent(); }
int64_t FreeBytes(Device) { Absent(); }
std::string ModelName(Device) { Absent(); }
std::byte* AllocateDevice(Device, int64_t, const std::string&) { Absent(); }
void FreeDevice(Device, std::byte*) { Absent(); }
std::byte* AllocatePinned(Device, int64_t, const std::string&) { Absent(); }
void FreePinned(std::byte*) { Absent(); }
StreamHandle CreateStream(Device) { Absent(); }
void DestroyStream(StreamHandle) { Absent(); }
void Synchronize(StreamHandle) { Absent(); }
void SynchronizeDevice(Device) { Absent(); }
EventHandle CreateEvent(Device, Timing) { Absent(); }
void DestroyEvent(EventHandle) { Absent(); }
void RecordEvent(EventHandle, StreamHandle) { Absent(); }
void WaitForEvent(StreamHandle, EventHandle) { Absent(); }
void SynchronizeEvent(EventHandle) { Absent(); }
bool IsEventDone(EventHandle) { Absent(); }
float MillisecondsBetween(EventHandle, EventHandle) { Absent(); }
void CopyAsync(StreamHandle, std::byte*, const std::byte*, int64_t) { Absent(); }
void SetZeroAsync(StreamHandle, std::byte*, int64_t) { Absent(); }

}  // namespace cuda
}  // namespace panthera
