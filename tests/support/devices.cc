#include "tests/support/devices.h"

#include "runtime/device/cuda_device.h"

namespace panthera::testing {

std::vector<Device> ComputeDevices() {
  std::vector<Device> devices{{DeviceKind::kCpu, 0}};
  if (CountCudaDevices().ok()) {
    devices.push_back({DeviceKind::kCuda, 0});
  }
  return devices;
}

std::string DeviceName(const ::testing::TestParamInfo<Device>& info) {
  return info.param.is_cuda() ? "cuda" : "cpu";
}

}  // namespace panthera::testing
