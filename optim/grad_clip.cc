#include "optim/grad_clip.h"

#include "runtime/base/check.h"

namespace panthera {

float ClipScale(double norm, double max_norm) {
  CHECK_GE(max_norm, 0);
  if (max_norm == 0 || norm <= max_norm) {
    return 1;
  }
  return static_cast<float>(max_norm / norm);
}

}  // namespace panthera
