#include "model/ops/rmsnorm.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

// Threads for a row of `packs`: about four packs each, so that loads overlap.
unsigned RowThreads(int64_t packs) {
  const int64_t warps = std::clamp<int64_t>(CeilDiv(packs, int64_t{4} * kWarpThreads), 1, 16);
  return static_cast<unsigned>(warps * kWarpThreads);
}

__device__ float ReciprocalRms(float squares, int64_t width, float eps) {
  return __fdiv_rn(1.0F, __fsqrt_rn(squares / static_cast<float>(width) + eps));
}

// One block per row. With kAdd first sum = x + branch, rounded; else sum is x and not written.
template <bool kAdd, typename T, int kPack>
__global__ void RmsNormKernel(const T* x, const T* branch, const float* gain, int64_t width,
                              float eps, T* sum, T* y, float* rstd) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  using Elements = Pack<T, kPack>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * width;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  float squares = 0;
  for (int64_t c = begin; c < width; c += step) {
    Elements value = Elements::Load(x + row + c);
    if constexpr (kAdd) {
      const Elements added = Elements::Load(branch + row + c);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        value.values[i] = static_cast<float>(static_cast<T>(value.values[i] + added.values[i]));
      }
      value.Store(sum + row + c);
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      squares += value.values[i] * value.values[i];
    }
  }
  const float reciprocal = ReciprocalRms(BlockSum(squares, scratch), width, eps);
  if (threadIdx.x == 0) {
    rstd[blockIdx.x] = reciprocal;
  }
  // The row again, from the cache; each thread reads what it wrote.
  const T* source = kAdd ? sum : x;
  for (int64_t c = begin; c < width; c += step) {
    Elements value = Elements::Load(source + row + c);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      value.values[i] = value.values[i] * reciprocal * gain[c + i];
    }
    value.Store(y + row + c);
  }
}

// One block per kGainBlockRows rows: their dx, and their sum of dgain in partials[block]. The sum
// is kept in shared memory [width], where each thread has its own columns.
template <typename T, int kPack>
__global__ void RmsNormBackwardKernel(const T* dy, const T* x, const float* gain, const float* rstd,
                                      const T* dresidual, int64_t rows, int64_t width, T* dx,
                                      float* partials) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  float* dgain = DynamicShared<float>();
  using Elements = Pack<T, kPack>;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  for (int64_t c = begin; c < width; c += step) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      dgain[c + i] = 0;
    }
  }
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kGainBlockRows;
  const int64_t last = first + kGainBlockRows < rows ? first + kGainBlockRows : rows;
  for (int64_t n = first; n < last; ++n) {
    const int64_t row = n * width;
    float projection = 0;
    for (int64_t c = begin; c < width; c += step) {
      const Elements gradient = Elements::Load(dy + row + c);
      const Elements value = Elements::Load(x + row + c);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        projection += gradient.values[i] * gain[c + i] * value.values[i];
      }
    }
    const float reciprocal = rstd[n];
    const float mean = BlockSum(projection, scratch) * reciprocal / static_cast<float>(width);
    for (int64_t c = begin; c < width; c += step) {
      const Elements gradient = Elements::Load(dy + row + c);
      const Elements value = Elements::Load(x + row + c);
      Elements out;
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const float normal = value.values[i] * reciprocal;
        dgain[c + i] += gradient.values[i] * normal;
        out.values[i] = reciprocal * (gradient.values[i] * gain[c + i] - normal * mean);
      }
      if (dresidual != nullptr) {
        const Elements residual = Elements::Load(dresidual + row + c);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          out.values[i] += residual.values[i];
        }
      }
      out.Store(dx + row + c);
    }
  }
  for (int64_t c = begin; c < width; c += step) {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      partials[static_cast<int64_t>(blockIdx.x) * width + c + i] = dgain[c + i];
    }
  }
}

// sums[c] (+)= (partials[0, c] + partials[1, c]) + ..., by ascending row.
__global__ void AddPartialsKernel(const float* partials, int64_t count, int64_t width,
                                  Accumulate accumulate, float* sums) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= width) {
    return;
  }
  float sum = 0;
  for (int64_t row = 0; row < count; ++row) {
    sum += partials[row * width + c];
  }
  sums[c] = accumulate == Accumulate::kAdd ? sums[c] + sum : sum;
}

}  // namespace

void RmsNorm(Stream& stream, const Tensor& x, const Tensor& gain, float eps, Tensor y,
             Tensor rstd) {
  const int64_t width = x.size(1);
  DispatchPack(x.dtype(), IsPackable(width, x, y), [&]<typename T, int kPack>() {
    Launch(stream, {GridOf(x.size(0)), dim3(RowThreads(width / kPack))},
           &RmsNormKernel<false, T, kPack>, x.data<T>(), nullptr, gain.data<float>(), width, eps,
           nullptr, y.data<T>(), rstd.data<float>());
  });
}

void AddRmsNorm(Stream& stream, const Tensor& x, const Tensor& branch, const Tensor& gain,
                float eps, Tensor sum, Tensor y, Tensor rstd) {
  const int64_t width = x.size(1);
  DispatchPack(x.dtype(), IsPackable(width, x, branch, sum, y), [&]<typename T, int kPack>() {
    Launch(stream, {GridOf(x.size(0)), dim3(RowThreads(width / kPack))},
           &RmsNormKernel<true, T, kPack>, x.data<T>(), branch.data<T>(), gain.data<float>(), width,
           eps, sum.data<T>(), y.data<T>(), rstd.data<float>());
  });
}

void RmsNormBackward(Stream& stream, const Tensor& dy, const Tensor& x, const Tensor& gain,
                     const Tensor& rstd, const std::optional<Tensor>& dresidual, Tensor dx,
                     const Tensor& partials, const GradientTarget& dgain) {
  const int64_t width = x.size(1);
  const Tensor& residual = dresidual.has_value() ? *dresidual : dx;
  DispatchPack(x.dtype(), IsPackable(width, dy, x, residual, dx), [&]<typename T, int kPack>() {
    Launch(stream,
           {GridOf(partials.size(0)), dim3(RowThreads(width / kPack)),
            static_cast<size_t>(width) * sizeof(float)},
           &RmsNormBackwardKernel<T, kPack>, dy.data<T>(), x.data<T>(), gain.data<float>(),
           rstd.data<float>(), dresidual.has_value() ? dresidual->data<T>() : nullptr, x.size(0),
           width, dx.data<T>(), partials.data<float>());
  });
  constexpr unsigned kThreads = 128;
  Launch(stream, {GridOf(CeilDiv(width, int64_t{kThreads})), dim3(kThreads)}, &AddPartialsKernel,
         partials.data<float>(), partials.size(0), width, dgain.accumulate,
         dgain.gradient.data<float>());
}

}  // namespace panthera::cuda
