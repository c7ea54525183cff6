#ifndef PANTHERA_RUNTIME_MATH_ROW_SQUARES_H_
#define PANTHERA_RUNTIME_MATH_ROW_SQUARES_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// squares[r] = the sum over i of x[r, i]^2, added in double precision in an order that only the
// kind of device and the width determine. On a GPU this only enqueues work on ctx.compute().
//   x [R, C] fp32 or bf16;  squares [R] f64
void RowSquares(Context& ctx, const Tensor& x, Tensor squares);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_ROW_SQUARES_H_
