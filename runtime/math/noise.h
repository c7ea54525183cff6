#ifndef PANTHERA_RUNTIME_MATH_NOISE_H_
#define PANTHERA_RUNTIME_MATH_NOISE_H_

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera {

// x = numbers in [-0.5, 0.5] without a pattern, always the same: operands of products whose speed
// is measured, for products of zeros or of equal numbers can run faster than real ones. fp32 or
// bf16, on any device that computes. Blocks the host.
void FillWithNoise(Stream& stream, Tensor x);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_NOISE_H_
