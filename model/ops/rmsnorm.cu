#include "model/ops/rmsnorm.h"

#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "model/ops/rmsnorm_rows.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

__device__ float ReciprocalRms(float squares, int64_t width, float eps) {
  return __fdiv_rn(1.0F, __fsqrt_rn(squares / static_cast<float>(width) + eps));
}

// x + branch, rounded.
template <typename T, int kPack>
__device__ typename Pack<T, kPack>::Memory RoundedSum(
    const typename Pack<T, kPack>::Memory& x, const typename Pack<T, kPack>::Memory& branch) {
  auto sum = Pack<T, kPack>::Of(x);
  const auto added = Pack<T, kPack>::Of(branch);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    sum.values[i] += added.values[i];
  }
  return sum.Rounded();
}

template <typename T>
struct NormArguments {
  const T* x;
  const T* branch;
  const float* gain;
  int64_t rows;
  int64_t width;
  float eps;
  T* sum;
  T* y;
  float* rstd;
};

// One block for some rows. With kAdd first sum = x + branch, rounded; else sum is x and not
// written.
template <bool kAdd, typename T, int kPack, int kPacks>
__global__ void __launch_bounds__(kMostRowThreads) RmsNormKernel(NormArguments<T> input) {
  constexpr int kRows = kPacksTogether / kPacks;
  PANTHERA_SHARED_ARRAY(float, scratch, kRows* kMostWarps);
  using Elements = Pack<T, kPack>;
  const int64_t width = input.width;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows;
  typename Elements::Memory values[kRows][kPacks] = {};
  typename Elements::Memory branches[kRows][kPacks] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t c = begin + p * step;
      if (c < width && first + r < input.rows) {
        values[r][p] = Elements::Fetch(input.x + (first + r) * width + c);
        if constexpr (kAdd) {
          branches[r][p] = Elements::Fetch(input.branch + (first + r) * width + c);
        }
      }
    }
  }
  float gain[kPacks][kPack] = {};
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (begin + p * step < width) {
      LoadFp32<kPack>(input.gain + begin + p * step, gain[p]);
    }
  }
  float squares[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if constexpr (kAdd) {
        values[r][p] = RoundedSum<T, kPack>(values[r][p], branches[r][p]);
      }
      const Elements value = Elements::Of(values[r][p]);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        squares[r] += value.values[i] * value.values[i];
      }
    }
  }
  BlockSums(squares, scratch);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r >= input.rows) {
      return;
    }
    const float reciprocal = ReciprocalRms(squares[r], width, input.eps);
    if (threadIdx.x == 0) {
      input.rstd[first + r] = reciprocal;
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int64_t c = begin + p * step;
      if (c < width) {
        if constexpr (kAdd) {
          Elements::Put(values[r][p], input.sum + (first + r) * width + c);
        }
        Elements value = Elements::Of(values[r][p]);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          value.values[i] = value.values[i] * reciprocal * gain[p][i];
        }
        value.Store(input.y + (first + r) * width + c);
      }
    }
  }
}

// The same of rows that do not fit: one block per row, which is read again, from a cache.
template <bool kAdd, typename T, int kPack>
__global__ void WideRmsNormKernel(NormArguments<T> input) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  using Elements = Pack<T, kPack>;
  const int64_t width = input.width;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * width;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  float squares = 0;
  for (int64_t c = begin; c < width; c += step) {
    auto memory = Elements::Fetch(input.x + row + c);
    if constexpr (kAdd) {
      memory = RoundedSum<T, kPack>(memory, Elements::Fetch(input.branch + row + c));
      Elements::Put(memory, input.sum + row + c);
    }
    const Elements value = Elements::Of(memory);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      squares += value.values[i] * value.values[i];
    }
  }
  const float reciprocal = ReciprocalRms(BlockSum(squares, scratch), width, input.eps);
  if (threadIdx.x == 0) {
    input.rstd[blockIdx.x] = reciprocal;
  }
  // Each thread reads what it wrote.
  const T* source = kAdd ? input.sum : input.x;
  for (int64_t c = begin; c < width; c += step) {
    Elements value = Elements::Load(source + row + c);
    float gain[kPack];
    LoadFp32<kPack>(input.gain + c, gain);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      value.values[i] = value.values[i] * reciprocal * gain[i];
    }
    value.Store(input.y + row + c);
  }
}

template <bool kAdd, typename T, int kPack>
void LaunchRmsNorm(Stream& stream, const NormArguments<T>& input) {
  const bool fits = DispatchRow(input.width / kPack, [&]<int kPacks>(unsigned threads) {
    Launch(stream, {GridOf(CeilDiv(input.rows, int64_t{kPacksTogether / kPacks})), dim3(threads)},
           &RmsNormKernel<kAdd, T, kPack, kPacks>, input);
  });
  if (!fits) {
    Launch(stream, {GridOf(input.rows), dim3(kWideRowThreads)}, &WideRmsNormKernel<kAdd, T, kPack>,
           input);
  }
}

}  // namespace

void RmsNorm(Stream& stream, const Tensor& x, const Tensor& gain, float eps, Tensor y,
             Tensor rstd) {
  const int64_t width = x.size(1);
  DispatchPack(x.dtype(), IsPackable(width, x, gain, y), [&]<typename T, int kPack>() {
    LaunchRmsNorm<false, T, kPack>(stream, {.x = x.data<T>(),
                                            .branch = nullptr,
                                            .gain = gain.data<float>(),
                                            .rows = x.size(0),
                                            .width = width,
                                            .eps = eps,
                                            .sum = nullptr,
                                            .y = y.data<T>(),
                                            .rstd = rstd.data<float>()});
  });
}

void AddRmsNorm(Stream& stream, const Tensor& x, const Tensor& branch, const Tensor& gain,
                float eps, Tensor sum, Tensor y, Tensor rstd) {
  const int64_t width = x.size(1);
  const bool is_packable = IsPackable(width, x, branch, gain, sum, y);
  DispatchPack(x.dtype(), is_packable, [&]<typename T, int kPack>() {
    LaunchRmsNorm<true, T, kPack>(stream, {.x = x.data<T>(),
                                           .branch = branch.data<T>(),
                                           .gain = gain.data<float>(),
                                           .rows = x.size(0),
                                           .width = width,
                                           .eps = eps,
                                           .sum = sum.data<T>(),
                                           .y = y.data<T>(),
                                           .rstd = rstd.data<float>()});
  });
}

}  // namespace panthera::cuda
