#ifndef PANTHERA_MODEL_OPS_RESIDUAL_H_
#define PANTHERA_MODEL_OPS_RESIDUAL_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// out = a + b element by element, summed in fp32 and rounded once.
//   a, b, out  one shape and float type
// out is overwritten and may be a or b.
void Add(Context& ctx, const Tensor& a, const Tensor& b, Tensor out);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_RESIDUAL_H_
