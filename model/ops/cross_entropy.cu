#include "model/ops/cross_entropy.h"

#include <algorithm>
#include <cstdint>

#include "model/ops/cross_entropy.cuh"
#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kMostThreads = 1024;

// log(others + exp(shifted)) - shifted, with the digits of `others` where the target is almost
// certain (shifted = 0, others close to 0).
__device__ float Loss(float others, float shifted) {
  return shifted == 0 ? log1pf(others) : logf(others + expf(shifted)) - shifted;
}

template <typename T>
struct LossArguments {
  T* logits;  // [rows, columns]
  int64_t rows;
  int64_t columns;
  int64_t vocab_size;
  const int32_t* targets;
  float gradient_scale;
  float* losses;
};

// Where a row lies when it is read for the second time. kShared: the launch brings room for two
// rows of vocab_size elements, rounded up to packs.
enum class RowPlace : uint8_t { kGlobal, kShared };

// A block takes the rows of its index, that plus the grid, and so on. Each is read once for the sum
// of its exponentials, the target's apart, and once for the gradient that replaces it. In shared
// memory, the next row arrives meanwhile; a thread reads what it has copied itself, so that no
// barrier is needed. kPack divides `columns`.
template <RowPlace kPlace, CrossEntropyOutput kOutput, typename T, int kPack>
__global__ void __launch_bounds__(kMostThreads, 1) CrossEntropyKernel(LossArguments<T> input) {
  // Of this and of the last row, so that one barrier is enough.
  PANTHERA_SHARED_ARRAY(float, scratches, 2 * kScratch);
  float* scratch = scratches;
  using Elements = Pack<T, kPack>;
  const ThreadPacks<kPack> packs;
  const auto vocab_size = static_cast<unsigned>(input.vocab_size);
  const auto columns = static_cast<unsigned>(input.columns);
  const unsigned last_pack = vocab_size / kPack * kPack;
  const unsigned end_of_packs = last_pack < vocab_size ? last_pack + kPack : vocab_size;
  T* arriving = nullptr;
  T* arrived = nullptr;
  const auto begin_copy = [&](int64_t n) {
    for (unsigned v = packs.begin; v < vocab_size && n < input.rows; v += packs.step) {
      BeginCopy<kPackBytes>(arriving + v, input.logits + n * input.columns + v,
                            CopySource::kMemory);
    }
    CommitCopies();
  };
  if constexpr (kPlace == RowPlace::kShared) {
    arriving = DynamicShared<T>();
    arrived = arriving + end_of_packs;
    begin_copy(blockIdx.x);
  }
  int32_t next_target = input.targets[blockIdx.x];
  for (int64_t n = blockIdx.x; n < input.rows; n += gridDim.x) {
    T* const row = input.logits + n * input.columns;
    const T* source = row;
    const auto target = static_cast<unsigned>(next_target);
    const auto target_logit = static_cast<float>(row[target]);
    next_target = n + gridDim.x < input.rows ? input.targets[n + gridDim.x] : 0;
    if constexpr (kPlace == RowPlace::kShared) {
      T* const here = arriving;
      arriving = arrived;
      arrived = here;
      begin_copy(n + gridDim.x);
      WaitForCopies<1>();
      // What LeaveOut does, once for both readings.
      if (packs.Hold(target)) {
        here[target] = static_cast<T>(-INFINITY);
      }
      for (unsigned v = vocab_size; v < end_of_packs && packs.Hold(v); ++v) {
        here[v] = static_cast<T>(-INFINITY);
      }
      source = here;
    }
    MaxAndSum seen;
#pragma unroll 2
    for (unsigned v = packs.begin; v < vocab_size; v += packs.step) {
      Elements x = Elements::Load(source + v);
      if constexpr (kPlace == RowPlace::kGlobal) {
        LeaveOut(v, target, vocab_size, x);
      }
      seen.See(x);
    }
    // The barrier of this also orders the reads of logits above before the writes below.
    const MaxAndSum all = OverBlock(seen, scratch);
    scratch = scratch == scratches ? scratches + kScratch : scratches;
    const float max = fmaxf(all.max, target_logit);
    const float others = Rescaled(all, max);
    const float shifted = target_logit - max;
    if (threadIdx.x == 0) {
      input.losses[n] = Loss(others, shifted);
    }
    if constexpr (kOutput == CrossEntropyOutput::kLossAndGradient) {
      const float factor = input.gradient_scale / (others + expf(shifted));
      unsigned v = packs.begin;
#pragma unroll 2
      for (; v < vocab_size; v += packs.step) {
        Elements gradient = Elements::Load(source + v);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          gradient.values[i] = factor * ExpForGradient<T>(gradient.values[i] - max);
        }
        gradient.Store(row + v);
      }
      for (; v < columns; v += packs.step) {
        Elements{}.Store(row + v);
      }
      // What is different in packs that were just written.
      if (packs.Hold(target)) {
        row[target] = static_cast<T>(-factor * others);
      }
      for (v = vocab_size; v < end_of_packs && packs.Hold(v); ++v) {
        row[v] = static_cast<T>(0.0F);
      }
    }
  }
}

constexpr unsigned kTopOneThreads = 512;

// One block per row: the first of the largest. NaNs are passed over, and neither one nor -infinity
// is it.
template <typename T>
__global__ void TopOneKernel(const T* logits, int64_t columns, int64_t vocab_size,
                             const int32_t* targets, int32_t* correct) {
  PANTHERA_SHARED_ARRAY(float, scratch, kMostWarps);
  PANTHERA_SHARED_ARRAY(int, better, 1);
  const T* row = logits + static_cast<int64_t>(blockIdx.x) * columns;
  const int64_t target = targets[blockIdx.x];
  const float value = static_cast<float>(row[target]);
  if (threadIdx.x == 0) {
    better[0] = value > -INFINITY ? 0 : 1;
  }
  __syncthreads();
  int beaten = 0;
  for (int64_t v = threadIdx.x; v < vocab_size; v += kTopOneThreads) {
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

template <CrossEntropyOutput kOutput, typename T, int kPack>
void LaunchCrossEntropy(Stream& stream, const LossArguments<T>& input) {
  const int64_t packs = CeilDiv(input.vocab_size, kPack);
  const int64_t threads =
      std::min<int64_t>(RoundUp(packs, int64_t{kWarpThreads}), int64_t{kMostThreads});
  const dim3 block(static_cast<unsigned>(threads));
  if constexpr (kPack > 1) {
    const Device device = stream.device();
    const int64_t shared_bytes = 2 * packs * kPackBytes;
    const int64_t room = MostDynamicShared(device);
    if (shared_bytes <= room) {
      const int64_t blocks = std::min(kMostThreads / threads, room / shared_bytes);
      Launch(stream,
             {GridOf(std::min(input.rows, Multiprocessors(device) * blocks)), block,
              static_cast<size_t>(shared_bytes)},
             &CrossEntropyKernel<RowPlace::kShared, kOutput, T, kPack>, input);
      return;
    }
  }
  Launch(stream, {GridOf(input.rows), block},
         &CrossEntropyKernel<RowPlace::kGlobal, kOutput, T, kPack>, input);
}

}  // namespace

void CrossEntropy(Stream& stream, Tensor logits, int64_t vocab_size, const Tensor& targets,
                  CrossEntropyOutput output, float gradient_scale, Tensor losses) {
  DispatchPack(logits.dtype(), IsPackable(logits.size(1), logits), [&]<typename T, int kPack>() {
    const LossArguments<T> input = {.logits = logits.data<T>(),
                                    .rows = logits.size(0),
                                    .columns = logits.size(1),
                                    .vocab_size = vocab_size,
                                    .targets = targets.data<int32_t>(),
                                    .gradient_scale = gradient_scale,
                                    .losses = losses.data<float>()};
    if (output == CrossEntropyOutput::kLoss) {
      LaunchCrossEntropy<CrossEntropyOutput::kLoss, T, kPack>(stream, input);
    } else {
      LaunchCrossEntropy<CrossEntropyOutput::kLossAndGradient, T, kPack>(stream, input);
    }
  });
}

void TopOne(Stream& stream, const Tensor& logits, int64_t vocab_size, const Tensor& targets,
            Tensor correct) {
  DispatchFloat(logits.dtype(), [&]<typename T>() {
    Launch(stream, {GridOf(logits.size(0)), dim3(kTopOneThreads)}, &TopOneKernel<T>,
           logits.data<T>(), logits.size(1), vocab_size, targets.data<int32_t>(),
           correct.data<int32_t>());
  });
}

}  // namespace panthera::cuda
