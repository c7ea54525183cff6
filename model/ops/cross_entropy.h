#ifndef PANTHERA_MODEL_OPS_CROSS_ENTROPY_H_
#define PANTHERA_MODEL_OPS_CROSS_ENTROPY_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

enum class CrossEntropyOutput : uint8_t { kLoss, kLossAndGradient };

// losses[i] = lse_i - logits[i, targets[i]],   lse_i = log(sum_v exp(logits[i, v])), v in [0, V)
//   logits [n, P] float, P >= vocab_size = V   targets [n] kI32 in [0, V)   losses [n] kF32
//
// losses is overwritten. With kLossAndGradient so are the logits:
//
//   logits[i, v] <- gradient_scale * (exp(logits[i, v] - lse_i) - (v == targets[i]))   v <  V
//   logits[i, v] <- 0                                                                  v >= V
//
// The columns from V on are padding and never read. Arithmetic in fp32, sums as in
// runtime/base/simd.h. A logit that is not finite gives a loss that is not finite, except that
// -infinity is a token of probability zero.
void CrossEntropy(Context& ctx, Tensor logits, int64_t vocab_size, const Tensor& targets,
                  CrossEntropyOutput output, float gradient_scale, Tensor losses);

// correct[i] = 1 if targets[i] is the first of the largest among logits[i, 0..V), else 0.
//   logits and targets as above   correct [n] kI32, overwritten
void TopOne(Context& ctx, const Tensor& logits, int64_t vocab_size, const Tensor& targets,
            Tensor correct);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_CROSS_ENTROPY_H_
