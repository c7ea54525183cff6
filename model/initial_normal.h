// The numbers behind initial values, for CPU loops and CUDA kernels.
#ifndef PANTHERA_MODEL_INITIAL_NORMAL_H_
#define PANTHERA_MODEL_INITIAL_NORMAL_H_

#include <cmath>
#include <cstdint>
#include <numbers>

#include "runtime/base/host_device.h"
#include "runtime/base/philox.h"

namespace panthera {

// Normal numbers come in draws of so many, two pairs each.
inline constexpr int64_t kNormalsPerDraw = 4;

// Two independent standard normal numbers in polar form (Box and Muller, 1958): radius * cos(angle)
// and radius * sin(angle).
struct NormalPair {
  double radius;
  double angle;
};

// Pair 0 or 1 of a draw.
PANTHERA_HOST_DEVICE inline NormalPair PairOf(const Philox& draw, int pair) {
  // The radius needs a number in (0, 1]: log(0) is infinite.
  const double radius_uniform = (static_cast<double>(draw.value[2 * pair]) + 1.0) * 0x1p-32;
  const double angle_uniform = static_cast<double>(draw.value[2 * pair + 1]) * 0x1p-32;
  return {std::sqrt(-2.0 * std::log(radius_uniform)), 2.0 * std::numbers::pi * angle_uniform};
}

}  // namespace panthera

#endif  // PANTHERA_MODEL_INITIAL_NORMAL_H_
