#include <cstdint>
#include <optional>

#include "model/ops/cuda_kernels.h"
#include "model/ops/rmsnorm.h"
#include "model/ops/rmsnorm_rows.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

template <typename T>
struct NormGradientArguments {
  const T* dy;
  const T* x;
  const float* gain;
  const float* rstd;
  const T* dresidual;  // may be null
  int64_t rows;
  int64_t width;
  T* dx;
  float* partials;
};

// One pack of a row: returns dx without the residual's part, and adds to dgain.
template <typename T, int kPack>
__device__ Pack<T, kPack> Gradient(const Pack<T, kPack>& dy, const Pack<T, kPack>& x,
                                   const float (&gain)[kPack], float rstd, float mean,
                                   float (&dgain)[kPack]) {
  Pack<T, kPack> dx;
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const float normal = x.values[i] * rstd;
    dgain[i] += dy.values[i] * normal;
    dx.values[i] = rstd * (dy.values[i] * gain[i] - normal * mean);
  }
  return dx;
}

template <typename T, int kPack>
__device__ float Projection(const Pack<T, kPack>& dy, const Pack<T, kPack>& x,
                            const float (&gain)[kPack], float projection) {
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    projection += dy.values[i] * gain[i] * x.values[i];
  }
  return projection;
}

// One block per kGainBlockRows rows: their dx, and their sum of dgain, by ascending row, in
// partials[block].
template <typename T, int kPack, int kPacks>
__global__ void __launch_bounds__(kMostRowThreads)
    RmsNormBackwardKernel(NormGradientArguments<T> input) {
  constexpr int kRows = kPacksTogether / kPacks;
  constexpr int kScratch = kRows * kMostWarps;
  // Of this and of the last rows, so that one barrier is enough.
  PANTHERA_SHARED_ARRAY(float, scratch, 2 * kScratch);
  using Elements = Pack<T, kPack>;
  using Memory = typename Elements::Memory;
  const int64_t width = input.width;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  float gain[kPacks][kPack] = {};
  float dgain[kPacks][kPack] = {};
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (begin + p * step < width) {
      LoadFp32<kPack>(input.gain + begin + p * step, gain[p]);
    }
  }
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kGainBlockRows;
  const int64_t last = first + kGainBlockRows < input.rows ? first + kGainBlockRows : input.rows;
  for (int64_t n = first; n < last; n += kRows) {
    Memory dy[kRows][kPacks] = {};
    Memory x[kRows][kPacks] = {};
    Memory residual[kRows][kPacks] = {};
    float rstd[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = (n + r) * width;
      if (n + r < last) {
        rstd[r] = input.rstd[n + r];
      }
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int64_t c = begin + p * step;
        if (c < width && n + r < last) {
          dy[r][p] = Elements::Fetch(input.dy + row + c);
          x[r][p] = Elements::Fetch(input.x + row + c);
          if (input.dresidual != nullptr) {
            residual[r][p] = Elements::Fetch(input.dresidual + row + c);
          }
        }
      }
    }
    float projections[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        projections[r] =
            Projection(Elements::Of(dy[r][p]), Elements::Of(x[r][p]), gain[p], projections[r]);
      }
    }
    BlockSums(projections, scratch + (n / kRows % 2 == 0 ? 0 : kScratch));
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (n + r >= last) {
        break;
      }
      const float mean = projections[r] * rstd[r] / static_cast<float>(width);
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int64_t c = begin + p * step;
        if (c < width) {
          Elements dx = Gradient(Elements::Of(dy[r][p]), Elements::Of(x[r][p]), gain[p], rstd[r],
                                 mean, dgain[p]);
          if (input.dresidual != nullptr) {
            const Elements added = Elements::Of(residual[r][p]);
#pragma unroll
            for (int i = 0; i < kPack; ++i) {
              dx.values[i] += added.values[i];
            }
          }
          dx.Store(input.dx + (n + r) * width + c);
        }
      }
    }
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t c = begin + p * step;
    if (c < width) {
      StoreFp32<kPack>(dgain[p], input.partials + static_cast<int64_t>(blockIdx.x) * width + c);
    }
  }
}

// The same of rows that do not fit: they are read again, from a cache, and the sums of dgain are
// kept in `partials`.
template <typename T, int kPack>
__global__ void WideRmsNormBackwardKernel(NormGradientArguments<T> input) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  using Elements = Pack<T, kPack>;
  const int64_t width = input.width;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kGainBlockRows;
  const int64_t last = first + kGainBlockRows < input.rows ? first + kGainBlockRows : input.rows;
  float* const partials = input.partials + static_cast<int64_t>(blockIdx.x) * width;
  for (int64_t n = first; n < last; ++n) {
    const int64_t row = n * width;
    float gain[kPack];
    float projection = 0;
    for (int64_t c = begin; c < width; c += step) {
      LoadFp32<kPack>(input.gain + c, gain);
      projection = Projection(Elements::Load(input.dy + row + c), Elements::Load(input.x + row + c),
                              gain, projection);
    }
    const float rstd = input.rstd[n];
    const float mean = BlockSum(projection, scratch) * rstd / static_cast<float>(width);
    for (int64_t c = begin; c < width; c += step) {
      float dgain[kPack] = {};
      if (n > first) {
        LoadFp32<kPack>(partials + c, dgain);
      }
      LoadFp32<kPack>(input.gain + c, gain);
      Elements dx = Gradient(Elements::Load(input.dy + row + c), Elements::Load(input.x + row + c),
                             gain, rstd, mean, dgain);
      StoreFp32<kPack>(dgain, partials + c);
      if (input.dresidual != nullptr) {
        const Elements added = Elements::Load(input.dresidual + row + c);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          dx.values[i] += added.values[i];
        }
      }
      dx.Store(input.dx + row + c);
    }
  }
}

// A warp for each of kPartialGroups parts of the rows, a lane for each column.
constexpr int kPartialGroups = 32;

// sums[c] (+)= (part 0 + part 1) + ..., of which part g is partials[g, c] + partials[g +
// kPartialGroups, c] + ..., by ascending row.
__global__ void AddPartialsKernel(const float* partials, int64_t count, int64_t width,
                                  Accumulate accumulate, float* sums) {
  PANTHERA_SHARED_ARRAY(float, parts, kPartialGroups* kWarpThreads);
  const int64_t group = threadIdx.x / kWarpThreads;
  const int64_t lane = threadIdx.x % kWarpThreads;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kWarpThreads + lane;
  float sum = 0;
  if (c < width) {
#pragma unroll 8
    for (int64_t row = group; row < count; row += kPartialGroups) {
      sum += partials[row * width + c];
    }
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0 || c >= width) {
    return;
  }
  for (int64_t g = 1; g < kPartialGroups; ++g) {
    sum += parts[g * kWarpThreads + lane];
  }
  sums[c] = accumulate == Accumulate::kAdd ? sums[c] + sum : sum;
}

}  // namespace

void RmsNormBackward(Stream& stream, const Tensor& dy, const Tensor& x, const Tensor& gain,
                     const Tensor& rstd, const std::optional<Tensor>& dresidual, Tensor dx,
                     const Tensor& partials, const GradientTarget& dgain) {
  const int64_t width = x.size(1);
  const int64_t blocks = partials.size(0);
  const Tensor& residual = dresidual.has_value() ? *dresidual : dx;
  const bool is_packable = IsPackable(width, dy, x, gain, residual, dx, partials);
  DispatchPack(x.dtype(), is_packable, [&]<typename T, int kPack>() {
    const NormGradientArguments<T> input = {
        .dy = dy.data<T>(),
        .x = x.data<T>(),
        .gain = gain.data<float>(),
        .rstd = rstd.data<float>(),
        .dresidual = dresidual.has_value() ? dresidual->data<T>() : nullptr,
        .rows = x.size(0),
        .width = width,
        .dx = dx.data<T>(),
        .partials = partials.data<float>()};
    const bool fits = DispatchRow(width / kPack, [&]<int kPacks>(unsigned threads) {
      Launch(stream, {GridOf(blocks), dim3(threads)}, &RmsNormBackwardKernel<T, kPack, kPacks>,
             input);
    });
    if (!fits) {
      Launch(stream, {GridOf(blocks), dim3(kWideRowThreads)}, &WideRmsNormBackwardKernel<T, kPack>,
             input);
    }
  });
  Launch(stream,
         {GridOf(CeilDiv(width, int64_t{kWarpThreads})), dim3(kPartialGroups * kWarpThreads)},
         &AddPartialsKernel, partials.data<float>(), blocks, width, dgain.accumulate,
         dgain.gradient.data<float>());
}

}  // namespace panthera::cuda
