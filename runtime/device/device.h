#ifndef PANTHERA_RUNTIME_DEVICE_DEVICE_H_
#define PANTHERA_RUNTIME_DEVICE_DEVICE_H_

#include <cstdint>
#include <ostream>

namespace panthera {

// kMeta has shapes and sizes but no data: on it every op checks its arguments and allocates its
// memory, and computes nothing.
enum class DeviceKind : uint8_t { kCpu, kCuda, kMeta };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int ordinal = 0;

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool is_cuda() const { return kind == DeviceKind::kCuda; }
  bool is_meta() const { return kind == DeviceKind::kMeta; }
  friend bool operator==(Device a, Device b) = default;
};

std::ostream& operator<<(std::ostream& out, Device device);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_DEVICE_H_
