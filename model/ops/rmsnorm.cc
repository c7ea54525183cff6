#include "model/ops/rmsnorm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/shape.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

constexpr int64_t kGainBlockRows = 256;

template <typename T>
PANTHERA_INLINE inline double SquaresOf(const T* x, int64_t width) {
  return SumTerms(width, [&](int64_t c) PANTHERA_INLINE {
    const float value = static_cast<float>(x[c]);
    return value * value;
  });
}
PANTHERA_SIMD double Squares(const float* x, int64_t width) { return SquaresOf(x, width); }
PANTHERA_SIMD double Squares(const BF16* x, int64_t width) { return SquaresOf(x, width); }

template <typename T>
PANTHERA_INLINE inline void ScaledRow(const T* x, const float* gain, float rstd, int64_t width,
                                      T* y) {
  PANTHERA_INDEPENDENT
  for (int64_t c = 0; c < width; ++c) {
    y[c] = static_cast<T>(static_cast<float>(x[c]) * rstd * gain[c]);
  }
}
PANTHERA_SIMD void Scale(const float* x, const float* gain, float rstd, int64_t width, float* y) {
  ScaledRow(x, gain, rstd, width, y);
}
PANTHERA_SIMD void Scale(const BF16* x, const float* gain, float rstd, int64_t width, BF16* y) {
  ScaledRow(x, gain, rstd, width, y);
}

// sum_c dy * gain * x
template <typename T>
PANTHERA_INLINE inline double ProjectionOf(const T* dy, const float* gain, const T* x,
                                           int64_t width) {
  return SumTerms(width, [&](int64_t c) PANTHERA_INLINE {
    return static_cast<float>(dy[c]) * gain[c] * static_cast<float>(x[c]);
  });
}
PANTHERA_SIMD double Projection(const float* dy, const float* gain, const float* x, int64_t width) {
  return ProjectionOf(dy, gain, x, width);
}
PANTHERA_SIMD double Projection(const BF16* dy, const float* gain, const BF16* x, int64_t width) {
  return ProjectionOf(dy, gain, x, width);
}

// One row of what the backward pass reads and writes; dresidual may be null.
template <typename T>
struct GradientRow {
  const T* dy;
  const T* x;
  const T* dresidual;
  const float* gain;
  float rstd;
  float mean;  // of z * xh
  T* dx;
  float* dgain;
};

template <bool kResidual, typename T>
PANTHERA_INLINE inline void GradientLoop(const GradientRow<T>& row, int64_t width) {
  PANTHERA_INDEPENDENT
  for (int64_t c = 0; c < width; ++c) {
    const float dy = static_cast<float>(row.dy[c]);
    const float normal = static_cast<float>(row.x[c]) * row.rstd;
    float dx = row.rstd * (dy * row.gain[c] - normal * row.mean);
    if constexpr (kResidual) {
      dx += static_cast<float>(row.dresidual[c]);
    }
    row.dgain[c] += dy * normal;
    row.dx[c] = static_cast<T>(dx);
  }
}
template <typename T>
PANTHERA_INLINE inline void GradientOf(const GradientRow<T>& row, int64_t width) {
  if (row.dresidual != nullptr) {
    GradientLoop<true>(row, width);
  } else {
    GradientLoop<false>(row, width);
  }
}
PANTHERA_SIMD void Gradient(const GradientRow<float>& row, int64_t width) {
  GradientOf(row, width);
}
PANTHERA_SIMD void Gradient(const GradientRow<BF16>& row, int64_t width) { GradientOf(row, width); }

float ReciprocalRms(double squares, int64_t width, float eps) {
  return static_cast<float>(
      1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(eps)));
}

void CheckNorm(const Tensor& x, const Tensor& gain, const Tensor& y, const Tensor& rstd) {
  CHECK_EQ(x.shape().rank(), 2);
  CHECK_EQ(y.shape(), x.shape());
  CHECK_EQ(y.dtype(), x.dtype());
  CHECK_SHAPE(gain, x.size(1));
  CHECK_SHAPE(rstd, x.size(0));
  CHECK_EQ(gain.dtype(), DType::kF32);
  CHECK_EQ(rstd.dtype(), DType::kF32);
}

// The rows [begin, end) of dx and their sum of dgain, which `dgain` is overwritten with.
template <typename T>
void BackwardRows(const Tensor& dy, const Tensor& x, const Tensor& gain, const Tensor& rstd,
                  const T* dresidual, const Tensor& dx, int64_t begin, int64_t end, float* dgain) {
  const int64_t width = x.size(1);
  std::fill_n(dgain, width, 0.0F);
  for (int64_t n = begin; n < end; ++n) {
    GradientRow<T> row{.dy = dy.data<T>() + n * width,
                       .x = x.data<T>() + n * width,
                       .dresidual = dresidual == nullptr ? nullptr : dresidual + n * width,
                       .gain = gain.data<float>(),
                       .rstd = rstd.data<float>()[n],
                       .mean = 0,
                       .dx = dx.data<T>() + n * width,
                       .dgain = dgain};
    const double projection = Projection(row.dy, row.gain, row.x, width);
    row.mean =
        static_cast<float>(projection * static_cast<double>(row.rstd) / static_cast<double>(width));
    Gradient(row, width);
  }
}

// target[c] (+)= sum of partials[block, c] by ascending block.
void AddPartials(const Tensor& partials, const GradientTarget& target) {
  const int64_t blocks = partials.size(0);
  const int64_t width = partials.size(1);
  const float* rows = partials.data<float>();
  float* sums = target.gradient.data<float>();
  if (target.accumulate == Accumulate::kOverwrite) {
    std::fill_n(sums, width, 0.0F);
  }
  for (int64_t block = 0; block < blocks; ++block) {
    const float* row = rows + block * width;
    PANTHERA_INDEPENDENT
    for (int64_t c = 0; c < width; ++c) {
      sums[c] += row[c];
    }
  }
}

}  // namespace

void RmsNorm(Context& ctx, const Tensor& x, const Tensor& gain, float eps, Tensor y, Tensor rstd) {
  const OpTimer timer(ctx, {Op::kNorm}, {.bytes = Traffic({x, y})});
  CheckNorm(x, gain, y, rstd);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::RmsNorm(ctx.compute(), x, gain, eps, y, rstd);
    return;
  }
  const int64_t width = x.size(1);
  DispatchFloat(x.dtype(), [&]<typename T>() {
    ParallelFor(x.size(0), RowGrain(width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* row = x.data<T>() + n * width;
        const float reciprocal = ReciprocalRms(Squares(row, width), width, eps);
        rstd.data<float>()[n] = reciprocal;
        Scale(row, gain.data<float>(), reciprocal, width, y.data<T>() + n * width);
      }
    });
  });
}

void AddRmsNorm(Context& ctx, const Tensor& x, const Tensor& branch, const Tensor& gain, float eps,
                Tensor sum, Tensor y, Tensor rstd) {
  const OpTimer timer(ctx, {Op::kNorm}, {.bytes = Traffic({x, branch, sum, y})});
  CheckNorm(sum, gain, y, rstd);
  CHECK_EQ(x.shape(), sum.shape());
  CHECK_EQ(branch.shape(), sum.shape());
  CHECK_EQ(x.dtype(), sum.dtype());
  CHECK_EQ(branch.dtype(), sum.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::AddRmsNorm(ctx.compute(), x, branch, gain, eps, sum, y, rstd);
    return;
  }
  const int64_t width = x.size(1);
  DispatchFloat(x.dtype(), [&]<typename T>() {
    ParallelFor(x.size(0), RowGrain(width), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T* row = sum.data<T>() + n * width;
        StoreSum(x.data<T>() + n * width, branch.data<T>() + n * width, width, row);
        const float reciprocal = ReciprocalRms(Squares(row, width), width, eps);
        rstd.data<float>()[n] = reciprocal;
        Scale(row, gain.data<float>(), reciprocal, width, y.data<T>() + n * width);
      }
    });
  });
}

void RmsNormBackward(Context& ctx, const Tensor& dy, const Tensor& x, const Tensor& gain,
                     const Tensor& rstd, const std::optional<Tensor>& dresidual, Tensor dx,
                     const GradientTarget& dgain) {
  const OpTimer timer(
      ctx, {Op::kNorm, OpPass::kBackward},
      {.bytes = Traffic({dy, x, dx}) + (dresidual.has_value() ? Traffic({*dresidual}) : 0)});
  CheckNorm(x, gain, dx, rstd);
  CHECK_EQ(dy.shape(), x.shape());
  CHECK_EQ(dy.dtype(), x.dtype());
  CHECK_EQ(dgain.gradient.shape(), gain.shape());
  CHECK_EQ(dgain.gradient.dtype(), DType::kF32);
  if (dresidual.has_value()) {
    CHECK_EQ(dresidual->shape(), x.shape());
    CHECK_EQ(dresidual->dtype(), x.dtype());
  }
  const int64_t rows = x.size(0);
  const int64_t blocks =
      CeilDiv(rows, ctx.target().is_cuda() ? cuda::kGainBlockRows : kGainBlockRows);
  const Arena::Scope scratch(ctx.arena());
  const Tensor partials =
      ctx.arena().Allocate({blocks, x.size(1)}, DType::kF32, "gain gradient partials");
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::RmsNormBackward(ctx.compute(), dy, x, gain, rstd, dresidual, dx, partials, dgain);
    return;
  }
  DispatchFloat(x.dtype(), [&]<typename T>() {
    const T* residual = dresidual.has_value() ? dresidual->data<T>() : nullptr;
    ParallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        BackwardRows<T>(dy, x, gain, rstd, residual, dx, block * kGainBlockRows,
                        std::min(rows, (block + 1) * kGainBlockRows),
                        partials.data<float>() + block * x.size(1));
      }
    });
  });
  AddPartials(partials, dgain);
}

}  // namespace panthera
