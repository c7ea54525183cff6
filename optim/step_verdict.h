#ifndef PANTHERA_OPTIM_STEP_VERDICT_H_
#define PANTHERA_OPTIM_STEP_VERDICT_H_

#include <cmath>
#include <cstdint>

#include "optim/options.h"
#include "runtime/base/host_device.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera {

// What an optimizer step came to before its update, the same on every rank. It lies in the device's
// memory, where the update reads it, so that nothing in a step waits for the host to look.
struct StepVerdict {
  double loss_nats;      // mean over all targets of the global batch
  double gradient_norm;  // before clipping
  float gradient_scale;  // brings the norm down to clip_norm
  int32_t is_finite;     // loss and norm are
  int32_t is_skipped;    // NonFinitePolicy::kSkip leaves the step out
};

struct VerdictInput {
  Tensor losses;      // [R] f64: each rank's sum of losses
  Tensor param_sums;  // [params] f64: sums of squares of the gradient
  int64_t targets = 0;
  double norm_divisor = 1;  // of the sum of all param_sums, before the root
  double clip_norm = 0;     // 0: no clipping
  NonFinitePolicy policy = NonFinitePolicy::kStop;
};

// The factor min(1, max_norm / norm) that brings a gradient of Euclidean norm `norm` down to
// `max_norm` (Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks",
// ICML 2013). Exactly 1 for norms up to max_norm, and for every norm when max_norm is 0, which
// means no clipping. A NaN norm gives NaN, an infinite one 0: whoever skips non-finite steps looks
// at the norm first.
PANTHERA_HOST_DEVICE inline float ClipScale(double norm, double max_norm) {
  return max_norm == 0 || norm <= max_norm ? 1.0F : static_cast<float>(max_norm / norm);
}

// The verdict on sums over all losses and over all squares of a step's gradient.
PANTHERA_HOST_DEVICE inline StepVerdict VerdictOn(double loss_sum, double squares, int64_t targets,
                                                  double norm_divisor, double clip_norm,
                                                  NonFinitePolicy policy) {
  StepVerdict verdict{};
  verdict.loss_nats = loss_sum / static_cast<double>(targets);
  verdict.gradient_norm = std::sqrt(squares / norm_divisor);
  verdict.gradient_scale = ClipScale(verdict.gradient_norm, clip_norm);
  // A difference with itself is 0 for finite numbers and NaN for all others.
  const bool is_finite = verdict.loss_nats - verdict.loss_nats == 0 &&
                         verdict.gradient_norm - verdict.gradient_norm == 0;
  verdict.is_finite = is_finite ? 1 : 0;
  verdict.is_skipped = !is_finite && policy == NonFinitePolicy::kSkip ? 1 : 0;
  return verdict;
}

// Adds the losses by rank and the sums by ParamId::index, in double, and passes the verdict. Where
// it skips the step, sets all `flags`. Enqueued on `stream`; computes nothing on kMeta.
//   flags    [params] u8, or empty with kStop
//   verdict  [sizeof(StepVerdict)] u8
void JudgeStep(Stream& stream, const VerdictInput& input, Tensor flags, Tensor verdict);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_STEP_VERDICT_H_
