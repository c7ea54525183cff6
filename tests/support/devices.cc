#include "tests/support/devices.h"

#include "runtime/device/cuda_device.h"

namespace panthera::testing {

std::vector<Device> ComputeDevices() {
  std::vector<Device> devices = Gpus();
  devices.insert(devices.begin(), Device{DeviceKind::kCpu, 0});
  return devices;
}

std::vector<Device> Gpus() {
  if (!CountCudaDevices().ok()) {
    return {};
  }
  return {{DeviceKind::kCuda, 0}};
}

std::string DeviceName(const ::testing::TestParamInfo<Device>& info) {
  return info.param.is_cuda() ? "cuda" : "cpu";
}

}  // namespace panthera::testing
