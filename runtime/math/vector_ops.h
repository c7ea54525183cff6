#ifndef PANTHERA_RUNTIME_MATH_VECTOR_OPS_H_
#define PANTHERA_RUNTIME_MATH_VECTOR_OPS_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// x = 0, any type.
void SetZero(Context& ctx, Tensor x);

// sum[0] += x[0] + x[1] + ..., each added in double precision in index order.
//   x [n] fp32 or i32;  sum [1] fp64
void AddSum(Context& ctx, const Tensor& x, Tensor sum);

// sums[t] += x[0,t] + x[1,t] + ..., each added in double precision in index order.
//   x [B, T] fp32 or i32;  sums [T] fp64
void AddColumnSums(Context& ctx, const Tensor& x, Tensor sums);

// largest[0] = the largest |x[i]|: NaN if some x[i] is NaN, 0 if there is none.
//   x fp32 or bf16, any shape;  largest [1] fp32
void MaxAbs(Context& ctx, const Tensor& x, Tensor largest);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_VECTOR_OPS_H_
