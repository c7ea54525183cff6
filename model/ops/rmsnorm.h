#ifndef PANTHERA_MODEL_OPS_RMSNORM_H_
#define PANTHERA_MODEL_OPS_RMSNORM_H_

#include <optional>

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"
#include "runtime/params/gradient_sink.h"

namespace panthera {

// Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467).
//
//   y[n,c] = x[n,c] * rstd[n] * gain[c],   rstd[n] = 1 / sqrt(mean_c(x[n,c]^2) + eps)
//   x, y  [N, C] one float type   gain [C] kF32   rstd [N] kF32, kept for the backward pass
//
// y and rstd are overwritten; y may be x. Row sums as in runtime/base/simd.h.
void RmsNorm(Context& ctx, const Tensor& x, const Tensor& gain, float eps, Tensor y, Tensor rstd);

// A residual sum and its normalisation in one pass:
//
//   sum = x + branch, rounded to its type;  y, rstd = RmsNorm(sum)
//   x, branch, sum, y  [N, C] one float type
//
// sum, y and rstd are overwritten; sum may be x or branch, y may be branch but not sum.
void AddRmsNorm(Context& ctx, const Tensor& x, const Tensor& branch, const Tensor& gain, float eps,
                Tensor sum, Tensor y, Tensor rstd);

// With z = dy * gain and xh = x * rstd, element-wise in a row:
//
//   dx[n,c]  = dresidual[n,c] + rstd[n] * (z[n,c] - xh[n,c] * mean_c(z * xh))
//   dgain[c] (+)= sum_n dy[n,c] * xh[n,c]
//   dy, x, dresidual, dx  [N, C] one float type   gain [C], rstd [N], dgain.gradient [C]  kF32
//
// dresidual is the gradient that reaches x past the norm; none counts as zero. dx is overwritten
// and may be dresidual or dy. dgain is summed over fixed blocks of 256 rows (32 on a GPU), then
// over the blocks by index (on a GPU in 32 parts), so its bits do not depend on the number of
// threads; arena scratch 4 C for each block.
void RmsNormBackward(Context& ctx, const Tensor& dy, const Tensor& x, const Tensor& gain,
                     const Tensor& rstd, const std::optional<Tensor>& dresidual, Tensor dx,
                     const GradientTarget& dgain);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_RMSNORM_H_
