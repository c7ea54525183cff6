#ifndef PANTHERA_RUNTIME_MATH_VECTOR_OPS_H_
#define PANTHERA_RUNTIME_MATH_VECTOR_OPS_H_

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// Here `Context&` stands for its compute stream. On a GPU all of these only enqueue work; what they
// write is on the GPU, as is what they read.

// x = 0, any type.
void SetZero(Context& ctx, Tensor x);

// sum[0] += x[0] + x[1] + ..., added in double precision in an order that only the kind of device
// and n determine: on the CPU in index order; on a GPU every 1,024th element in index order, then
// these 1,024 sums, pairwise inside runs of 32 of them.
//   x [n] fp32 or i32;  sum [1] fp64
void AddSum(Context& ctx, const Tensor& x, Tensor sum);

// sums[t] = ((sums[t] + x[0,t]) + x[1,t]) + ..., in double precision. The same bits on every
// device.
//   x [B, T] fp32 or i32;  sums [T] fp64
void AddColumnSums(Context& ctx, const Tensor& x, Tensor sums);

// largest[0] = the largest |x[i]|: NaN if some x[i] is NaN, 0 if there is none. The same bits on
// every device.
//   x fp32 or bf16, any shape;  largest [1] fp32
void MaxAbs(Context& ctx, const Tensor& x, Tensor largest);

// out[i] = in[i], rounded to nearest, ties to even. The same bits on every device.
//   in fp32, any shape;  out bf16, as many elements, not overlapping in
void RoundToBf16(Stream& stream, const Tensor& in, Tensor out);

// x[i] *= factor, rounded once. The same bits on every device.
//   x fp32, any shape
void Scale(Stream& stream, float factor, Tensor x);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_VECTOR_OPS_H_
