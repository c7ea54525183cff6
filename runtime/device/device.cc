#include "runtime/device/device.h"

namespace panthera {

std::ostream& operator<<(std::ostream& out, Device device) {
  switch (device.kind) {
    case DeviceKind::kCpu:
      return out << "cpu";
    case DeviceKind::kCuda:
      return out << "cuda:" << device.ordinal;
    case DeviceKind::kMeta:
      return out << "meta";
  }
  return out;
}

}  // namespace panthera
