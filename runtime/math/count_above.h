#ifndef PANTHERA_RUNTIME_MATH_COUNT_ABOVE_H_
#define PANTHERA_RUNTIME_MATH_COUNT_ABOVE_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// count[0] = how many |x[i]| are above `bound`; a NaN is not. The same on every device. On a GPU
// this only enqueues work on ctx.compute().
//   x fp32 or bf16, any shape;  count [1] i64
void CountAbove(Context& ctx, float bound, const Tensor& x, Tensor count);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_COUNT_ABOVE_H_
