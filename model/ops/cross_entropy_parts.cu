#include <algorithm>
#include <cmath>
#include <cstdint>

#include "model/ops/cross_entropy.cuh"
#include "model/ops/cross_entropy_part.h"
#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

// Of a row. With packs few of them, so that several blocks share a multiprocessor and some of their
// rows arrive while others are summed over threads; without, as many as keep a thread's sum short.
template <int kPack>
constexpr unsigned kMostThreads = kPack > 1 ? 256 : 1024;

// A rank's columns.
template <typename T>
struct Slice {
  T* logits;  // [rows, columns]
  int64_t columns;
  int64_t vocab_size;
  int64_t first;  // token of column 0
  const int32_t* targets;

  __device__ TargetPlace TargetOf(int64_t row) const {
    return PlaceOf(targets[row], first, vocab_size);
  }
};

template <typename T, int kPack>
__device__ float LargestOf(const Pack<T, kPack>& x) {
  float largest = x.values[0];
#pragma unroll
  for (int i = 1; i < kPack; ++i) {
    largest = fmaxf(largest, x.values[i]);
  }
  return largest;
}

// What a thread has seen of the tokens but the target. As MaxAndSum, but the terms of a pack are
// added pairwise first, which leaves fewer roundings one after the other.
struct PartSeen {
  MaxAndSum others;
  float before = -INFINITY;
  float after = -INFINITY;

  // A pack that begins at column v. `before_target`: how many columns are in front of the target.
  template <typename T, int kPack>
  __device__ void See(unsigned v, unsigned before_target, const Pack<T, kPack>& x) {
    const float largest = LargestOf(x);
    if (v + kPack <= before_target) {
      before = fmaxf(before, largest);
    } else if (v >= before_target) {
      after = fmaxf(after, largest);
    } else {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        float& side = v + static_cast<unsigned>(i) < before_target ? before : after;
        side = fmaxf(side, x.values[i]);
      }
    }
    if (largest > others.max) {
      others.sum *= expf(others.max - largest);
      others.max = largest;
    }
    float terms[kPack];
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      terms[i] = expf(x.values[i] - others.max);
    }
#pragma unroll
    for (int half = kPack / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) {
        terms[i] += terms[i + half];
      }
    }
    others.sum += terms[0];
  }
};

// One block per row, which reads it once.
template <typename T, int kPack>
__global__ void __launch_bounds__(kMostThreads<kPack>)
    CrossEntropyPartKernel(Slice<T> slice, double* parts) {
  PANTHERA_SHARED_ARRAY(float, scratch, kScratch);
  PANTHERA_SHARED_ARRAY(float, maxima, kMostWarps);
  const int64_t n = blockIdx.x;
  const T* const row = slice.logits + n * slice.columns;
  const auto vocab_size = static_cast<unsigned>(slice.vocab_size);
  const TargetPlace target = slice.TargetOf(n);
  const auto before_target = static_cast<unsigned>(target.before);
  const unsigned left_out = target.is_here ? before_target : vocab_size;
  const ThreadPacks<kPack> packs;
  PartSeen seen;
#pragma unroll 2
  for (unsigned v = packs.begin; v < vocab_size; v += packs.step) {
    auto x = Pack<T, kPack>::Load(row + v);
    LeaveOut(v, left_out, vocab_size, x);
    seen.See(v, before_target, x);
  }
  const MaxAndSum others = OverBlock(seen.others, scratch);
  const float before = BlockMax(seen.before, maxima);
  const float after = BlockMax(seen.after, maxima);
  if (threadIdx.x == 0) {
    CrossEntropyPartOfRow part;
    part.before = static_cast<double>(before);
    part.after = static_cast<double>(after);
    if (target.is_here) {
      part.target = static_cast<double>(static_cast<float>(row[before_target]));
    }
    const double rescale = exp(static_cast<double>(others.max) - part.Largest());
    part.sum = others.sum == 0 ? 0.0 : static_cast<double>(others.sum) * rescale;
    part.Store(parts + n * kCrossEntropyPart);
  }
}

// The sum over ranks, by ascending rank, of exp(logit - largest) of a row's tokens but the target:
// in every lane of a warp, which share the exponentials.
__device__ double OthersOf(const CrossEntropyParts& parts, int64_t row, double largest) {
  const auto lane = static_cast<int64_t>(threadIdx.x % kWarpThreads);
  double others = 0;
  for (int64_t first = 0; first < parts.ranks; first += kWarpThreads) {
    double own = 0;
    if (first + lane < parts.ranks) {
      const CrossEntropyPartOfRow part = parts.At(first + lane, row);
      own = part.sum * exp(part.Largest() - largest);
    }
    const int64_t rest = parts.ranks - first;
    const int count = rest < kWarpThreads ? static_cast<int>(rest) : kWarpThreads;
    for (int i = 0; i < count; ++i) {
      others += __shfl_sync(kWholeWarp, own, i);
    }
  }
  return others;
}

// One block per row: its first warp combines the parts, then all replace the logits by their
// gradient.
template <CrossEntropyOutput kOutput, typename T, int kPack>
__global__ void __launch_bounds__(kMostThreads<kPack>)
    CrossEntropyFromPartsKernel(Slice<T> slice, CrossEntropyParts parts, float gradient_scale,
                                float* losses) {
  enum Value : int { kLargest, kFactor, kTarget, kValues };
  PANTHERA_SHARED_ARRAY(float, values, kValues);
  const int64_t n = blockIdx.x;
  if (threadIdx.x < kWarpThreads) {
    const CrossEntropyPartOfRow all = parts.LogitsOf(n);
    const double largest = all.Largest();
    const double others = OthersOf(parts, n, largest);
    const float shifted = static_cast<float>(all.target) - static_cast<float>(largest);
    if (threadIdx.x == 0) {
      const double sum = others + exp(static_cast<double>(shifted));
      const double factor = static_cast<double>(gradient_scale) / sum;
      // With the digits of `others` where the target is almost certain.
      losses[n] = static_cast<float>(shifted == 0 ? log1p(others)
                                                  : log(sum) - static_cast<double>(shifted));
      values[kLargest] = static_cast<float>(largest);
      values[kFactor] = static_cast<float>(factor);
      values[kTarget] = static_cast<float>(-factor * others);
    }
  }
  if constexpr (kOutput == CrossEntropyOutput::kLossAndGradient) {
    __syncthreads();
    using Elements = Pack<T, kPack>;
    const ThreadPacks<kPack> packs;
    T* const row = slice.logits + n * slice.columns;
    const auto vocab_size = static_cast<unsigned>(slice.vocab_size);
    const auto columns = static_cast<unsigned>(slice.columns);
    const float largest = values[kLargest];
    const float factor = values[kFactor];
    unsigned v = packs.begin;
#pragma unroll 2
    for (; v < vocab_size; v += packs.step) {
      Elements gradient = Elements::Load(row + v);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        gradient.values[i] = factor * ExpForGradient<T>(gradient.values[i] - largest);
      }
      gradient.Store(row + v);
    }
    for (; v < columns; v += packs.step) {
      Elements{}.Store(row + v);
    }
    // What is different in packs that were just written.
    const TargetPlace target = slice.TargetOf(n);
    const auto before_target = static_cast<unsigned>(target.before);
    if (target.is_here && packs.Hold(before_target)) {
      row[before_target] = static_cast<T>(values[kTarget]);
    }
    for (v = vocab_size; v % kPack != 0 && packs.Hold(v); ++v) {
      row[v] = static_cast<T>(0.0F);
    }
  }
}

constexpr unsigned kTopOneThreads = 256;

// One thread per row.
__global__ void TopOneFromPartsKernel(CrossEntropyParts parts, int32_t* correct) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kTopOneThreads + threadIdx.x;
  if (n < parts.rows) {
    correct[n] = parts.TargetIsFirstLargest(n) ? 1 : 0;
  }
}

template <int kPack>
dim3 ThreadsOf(int64_t columns) {
  const int64_t warps = CeilDiv(CeilDiv(columns, kPack), int64_t{kWarpThreads});
  return dim3(
      static_cast<unsigned>(std::min<int64_t>(warps * kWarpThreads, int64_t{kMostThreads<kPack>})));
}

CrossEntropyParts PartsIn(const Tensor& parts) {
  return {parts.data<double>(), parts.size(0), parts.size(1)};
}

// Calls function.operator()<T, kPack>(slice).
template <typename Function>
void DispatchSlice(const Tensor& logits, int64_t first_token, int64_t vocab_size,
                   const Tensor& targets, const Function& function) {
  DispatchPack(logits.dtype(), IsPackable(logits.size(1), logits), [&]<typename T, int kPack>() {
    function.template operator()<T, kPack>(Slice<T>{.logits = logits.data<T>(),
                                                    .columns = logits.size(1),
                                                    .vocab_size = vocab_size,
                                                    .first = first_token,
                                                    .targets = targets.data<int32_t>()});
  });
}

}  // namespace

void CrossEntropyPart(Stream& stream, const Tensor& logits, int64_t first_token, int64_t vocab_size,
                      const Tensor& targets, Tensor parts) {
  DispatchSlice(logits, first_token, vocab_size, targets,
                [&]<typename T, int kPack>(const Slice<T>& slice) {
                  Launch(stream, {GridOf(logits.size(0)), ThreadsOf<kPack>(slice.columns)},
                         &CrossEntropyPartKernel<T, kPack>, slice, parts.data<double>());
                });
}

void CrossEntropyFromParts(Stream& stream, Tensor logits, int64_t first_token, int64_t vocab_size,
                           const Tensor& targets, const Tensor& parts, CrossEntropyOutput output,
                           float gradient_scale, Tensor losses) {
  const dim3 grid = GridOf(logits.size(0));
  DispatchSlice(
      logits, first_token, vocab_size, targets, [&]<typename T, int kPack>(const Slice<T>& slice) {
        if (output == CrossEntropyOutput::kLoss) {
          Launch(stream, {grid, dim3(kWarpThreads)},
                 &CrossEntropyFromPartsKernel<CrossEntropyOutput::kLoss, T, kPack>, slice,
                 PartsIn(parts), gradient_scale, losses.data<float>());
        } else {
          Launch(stream, {grid, ThreadsOf<kPack>(slice.columns)},
                 &CrossEntropyFromPartsKernel<CrossEntropyOutput::kLossAndGradient, T, kPack>,
                 slice, PartsIn(parts), gradient_scale, losses.data<float>());
        }
      });
}

void TopOneFromParts(Stream& stream, const Tensor& parts, Tensor correct) {
  const CrossEntropyParts all = PartsIn(parts);
  Launch(stream, {GridOf(CeilDiv(all.rows, int64_t{kTopOneThreads})), dim3(kTopOneThreads)},
         &TopOneFromPartsKernel, all, correct.data<int32_t>());
}

}  // namespace panthera::cuda
