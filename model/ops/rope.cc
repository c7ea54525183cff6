#include "model/ops/rope.h"

#include <cmath>

#include "model/ops/cuda_kernels.h"
#include "model/ops/rotate_row.h"
#include "runtime/base/check.h"
#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

template <typename T>
PANTHERA_INLINE inline void Turn(const T* x, const float* cos, const float* sin, float sign,
                                 int64_t pairs, T* out) {
  PANTHERA_INDEPENDENT
  for (int64_t c = 0; c < pairs; ++c) {
    const float first = static_cast<float>(x[c]);
    const float second = static_cast<float>(x[c + pairs]);
    const float signed_sin = sign * sin[c];
    out[c] = static_cast<T>(first * cos[c] - second * signed_sin);
    out[c + pairs] = static_cast<T>(second * cos[c] + first * signed_sin);
  }
}

}  // namespace

PANTHERA_SIMD void RotateRow(const float* x, const float* cos, const float* sin, float sign,
                             int64_t pairs, float* out) {
  Turn(x, cos, sin, sign, pairs, out);
}

PANTHERA_SIMD void RotateRow(const BF16* x, const float* cos, const float* sin, float sign,
                             int64_t pairs, BF16* out) {
  Turn(x, cos, sin, sign, pairs, out);
}

void FillRotaryTable(double first, double step, double base, RotaryTable table) {
  const int64_t rows = table.cos.size(0);
  const int64_t pairs = table.cos.size(1);
  CHECK_SHAPE(table.sin, rows, pairs);
  CHECK(table.cos.device().is_cpu()) << table.cos.device();
  ParallelFor(rows, RowGrain(pairs), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const double position = first + step * static_cast<double>(t);
      for (int64_t c = 0; c < pairs; ++c) {
        const double angle =
            position * std::pow(base, -static_cast<double>(c) / static_cast<double>(pairs));
        table.cos.data<float>()[t * pairs + c] = static_cast<float>(std::cos(angle));
        table.sin.data<float>()[t * pairs + c] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

void Rotate(Context& ctx, Rotation rotation, const Heads& x, const RotaryTable& table, Heads out) {
  const int64_t elements = x.batch * x.tokens * x.heads * x.width;
  const OpTimer timer(ctx, {Op::kRope},
                      {.bytes = 2.0 * static_cast<double>(elements * SizeOf(x.dtype()))});
  CheckHeads(out, x.batch, x.tokens, x.heads, x.width);
  CHECK_EQ(out.dtype(), x.dtype());
  CHECK_EQ(x.width % 2, 0);
  const int64_t pairs = x.width / 2;
  CHECK_SHAPE(table.cos, x.tokens, pairs);
  CHECK_SHAPE(table.sin, x.tokens, pairs);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::Rotate(ctx.compute(), rotation, x, table, out);
    return;
  }
  const float sign = rotation == Rotation::kForward ? 1.0F : -1.0F;
  const float* cos = table.cos.data<float>();
  const float* sin = table.sin.data<float>();
  DispatchFloat(x.dtype(), [&]<typename T>() {
    const int64_t rows = x.batch * x.tokens;
    ParallelFor(rows, RowGrain(x.heads * x.width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t t = row % x.tokens;
        for (int64_t h = 0; h < x.heads; ++h) {
          RotateRow(x.at<T>(0, row, h), cos + t * pairs, sin + t * pairs, sign, pairs,
                    out.at<T>(0, row, h));
        }
      }
    });
  });
}

}  // namespace panthera
