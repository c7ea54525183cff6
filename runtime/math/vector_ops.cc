#include "runtime/math/vector_ops.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/cuda_kernels.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

template <typename T>
double Sum(const T* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(x[i]);
  }
  return sum;
}

template <typename T>
void AddRows(const T* x, int64_t rows, int64_t columns, double* sums) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      sums[column] += static_cast<double>(x[row * columns + column]);
    }
  }
}

// Without their sign bits, floats are ordered as their patterns are, and every NaN is above
// infinity: the largest pattern does not depend on the order of comparisons.
PANTHERA_SIMD uint32_t LargestMagnitude(const float* row, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(row[i]) & 0x7FFFFFFFU;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

void RaiseTo(uint32_t candidate, std::atomic<uint32_t>& largest) {
  uint32_t seen = largest.load();
  while (seen < candidate && !largest.compare_exchange_weak(seen, candidate)) {
  }
}

PANTHERA_SIMD void ScaleRow(float factor, int64_t count, float* row) {
  for (int64_t i = 0; i < count; ++i) {
    row[i] *= factor;
  }
}

}  // namespace

void SetZero(Context& ctx, Tensor x) {
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    if (x.bytes() > 0) {
      cuda::SetZeroAsync(ctx.compute().handle(), x.bytes_data(), x.bytes());
    }
    return;
  }
  ParallelFor(x.bytes(), int64_t{1} << 20, [&](int64_t begin, int64_t end) {
    std::memset(x.bytes_data() + begin, 0, static_cast<size_t>(end - begin));
  });
}

void AddSum(Context& ctx, const Tensor& x, Tensor sum) {
  CHECK_SHAPE(sum, 1);
  CHECK_EQ(sum.dtype(), DType::kF64);
  CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kI32) << Name(x.dtype());
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::AddSum(ctx.compute(), x, sum);
    return;
  }
  sum.data<double>()[0] += x.dtype() == DType::kF32 ? Sum(x.data<float>(), x.elements())
                                                    : Sum(x.data<int32_t>(), x.elements());
}

void AddColumnSums(Context& ctx, const Tensor& x, Tensor sums) {
  CHECK_EQ(x.shape().rank(), 2);
  CHECK_SHAPE(sums, x.size(1));
  CHECK_EQ(sums.dtype(), DType::kF64);
  CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kI32) << Name(x.dtype());
  if (ctx.device().is_meta() || x.elements() == 0) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::AddColumnSums(ctx.compute(), x, sums);
    return;
  }
  if (x.dtype() == DType::kF32) {
    AddRows(x.data<float>(), x.size(0), x.size(1), sums.data<double>());
  } else {
    AddRows(x.data<int32_t>(), x.size(0), x.size(1), sums.data<double>());
  }
}

void MaxAbs(Context& ctx, const Tensor& x, Tensor largest) {
  CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16) << x.dtype();
  CHECK_SHAPE(largest, 1);
  CHECK_EQ(largest.dtype(), DType::kF32);
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::MaxAbs(ctx.compute(), x, largest);
    return;
  }
  constexpr int64_t kChunk = 4096;
  std::atomic<uint32_t> pattern = 0;
  ParallelFor(x.elements(), RowGrain(1), [&](int64_t begin, int64_t end) {
    float chunk[kChunk];
    uint32_t mine = 0;
    for (int64_t first = begin; first < end; first += kChunk) {
      const int64_t count = std::min(kChunk, end - first);
      LoadRow(x, first, count, chunk);
      mine = std::max(mine, LargestMagnitude(chunk, count));
    }
    RaiseTo(mine, pattern);
  });
  largest.data<float>()[0] = std::bit_cast<float>(pattern.load());
}

void RoundToBf16(Stream& stream, const Tensor& in, Tensor out) {
  CHECK_EQ(in.elements(), out.elements());
  CHECK_EQ(in.dtype(), DType::kF32);
  CHECK_EQ(out.dtype(), DType::kBF16);
  CHECK_EQ(in.device(), stream.device());
  CHECK_EQ(out.device(), stream.device());
  if (stream.device().is_meta() || in.elements() == 0) {
    return;
  }
  if (stream.device().is_cuda()) {
    cuda::RoundToBf16(stream, in, out);
    return;
  }
  const float* from = in.data<float>();
  BF16* to = out.data<BF16>();
  ParallelFor(in.elements(), RowGrain(1),
              [&](int64_t begin, int64_t end) { StoreRow(from + begin, end - begin, to + begin); });
}

void Scale(Stream& stream, float factor, Tensor x) {
  CHECK_EQ(x.dtype(), DType::kF32);
  CHECK_EQ(x.device(), stream.device());
  if (stream.device().is_meta() || x.elements() == 0) {
    return;
  }
  if (stream.device().is_cuda()) {
    cuda::Scale(stream, factor, x);
    return;
  }
  float* values = x.data<float>();
  ParallelFor(x.elements(), RowGrain(1),
              [&](int64_t begin, int64_t end) { ScaleRow(factor, end - begin, values + begin); });
}

}  // namespace panthera
