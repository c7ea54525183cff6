#include "model/ops/cross_entropy.h"

#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 512;

// A maximum and the sum of exp(x - maximum) over what was seen. Of nothing: -infinity and 0.
struct MaxAndSum {
  float max = -INFINITY;
  float sum = 0;

  __device__ void See(float x) {
    if (x > max) {
      sum = sum * expf(max - x) + 1.0F;
      max = x;
    } else if (x > -INFINITY || x != x) {
      sum += expf(x - max);
    }
  }
};

// What `seen` contributes to a sum whose terms are relative to `max`.
__device__ float Rescaled(const MaxAndSum& seen, float max) {
  return seen.sum == 0 ? 0.0F : seen.sum * expf(seen.max - max);
}

// log(others + exp(shifted)) - shifted, with the digits of `others` where the target is almost
// certain (shifted = 0, others close to 0).
__device__ float Loss(float others, float shifted) {
  return shifted == 0 ? log1pf(others) : logf(others + expf(shifted)) - shifted;
}

// One block per row. The row is read once for the sum of its exponentials, the target's apart, and
// once, from the cache, for the gradient that replaces it. `vocab_size` logits count; kPack divides
// both it and `columns`.
template <CrossEntropyOutput kOutput, typename T, int kPack>
__global__ void CrossEntropyKernel(T* logits, int64_t columns, int64_t vocab_size,
                                   const int32_t* targets, float gradient_scale, float* losses) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  using Elements = Pack<T, kPack>;
  T* row = logits + static_cast<int64_t>(blockIdx.x) * columns;
  const int64_t target = targets[blockIdx.x];
  const float target_logit = static_cast<float>(row[target]);
  const int64_t step = static_cast<int64_t>(kThreads) * kPack;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * kPack;
  MaxAndSum seen;
  for (int64_t v = begin; v < vocab_size; v += step) {
    const Elements elements = Elements::Load(row + v);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      if (v + i != target) {
        seen.See(elements.values[i]);
      }
    }
  }
  // The sums over the block also order the reads above before the writes below.
  const float max = fmaxf(BlockMax(seen.max, scratch), target_logit);
  const float others = BlockSum(Rescaled(seen, max), scratch);
  const float shifted = target_logit - max;
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = Loss(others, shifted);
  }
  if constexpr (kOutput == CrossEntropyOutput::kLossAndGradient) {
    const float factor = gradient_scale / (others + expf(shifted));
    for (int64_t v = begin; v < columns; v += step) {
      Elements gradient{};
      if (v < vocab_size) {
        gradient = Elements::Load(row + v);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          gradient.values[i] =
              v + i == target ? -factor * others : factor * expf(gradient.values[i] - max);
        }
      }
      gradient.Store(row + v);
    }
  }
}

// One block per row: the first of the largest. NaNs are passed over.
template <typename T>
__global__ void TopOneKernel(const T* logits, int64_t columns, int64_t vocab_size,
                             const int32_t* targets, int32_t* correct) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  PANTHERA_SHARED_ARRAY(int, better, 1);
  const T* row = logits + static_cast<int64_t>(blockIdx.x) * columns;
  const int64_t target = targets[blockIdx.x];
  const float value = static_cast<float>(row[target]);
  if (threadIdx.x == 0) {
    better[0] = value != value ? 1 : 0;
  }
  __syncthreads();
  int beaten = 0;
  for (int64_t v = threadIdx.x; v < vocab_size; v += kThreads) {
    const float other = static_cast<float>(row[v]);
    beaten |= other > value || (other == value && v < target) ? 1 : 0;
  }
  if (BlockMax(static_cast<float>(beaten), scratch) > 0 && threadIdx.x == 0) {
    better[0] = 1;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    correct[blockIdx.x] = better[0] == 0 ? 1 : 0;
  }
}

}  // namespace

void CrossEntropy(Stream& stream, Tensor logits, int64_t vocab_size, const Tensor& targets,
                  CrossEntropyOutput output, float gradient_scale, Tensor losses) {
  const int64_t columns = logits.size(1);
  const bool is_packable = IsPackable(columns, logits) && IsPackable(vocab_size, logits);
  DispatchPack(logits.dtype(), is_packable, [&]<typename T, int kPack>() {
    const auto kernel = output == CrossEntropyOutput::kLoss
                            ? &CrossEntropyKernel<CrossEntropyOutput::kLoss, T, kPack>
                            : &CrossEntropyKernel<CrossEntropyOutput::kLossAndGradient, T, kPack>;
    Launch(stream, {GridOf(logits.size(0)), dim3(kThreads)}, kernel, logits.data<T>(), columns,
           vocab_size, targets.data<int32_t>(), gradient_scale, losses.data<float>());
  });
}

void TopOne(Stream& stream, const Tensor& logits, int64_t vocab_size, const Tensor& targets,
            Tensor correct) {
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    Launch(stream, {GridOf(logits.size(0)), dim3(kThreads)}, &TopOneKernel<T>, logits.data<T>(),
           logits.size(1), vocab_size, targets.data<int32_t>(), correct.data<int32_t>());
  });
}

}  // namespace panthera::cuda
