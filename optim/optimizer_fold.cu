// Kernels that fold gradients and take sums over sum blocks. Sums of squares have the order of
// SumTerms (runtime/base/simd.h): 16 partial sums, so 16 threads, a lane each, walk a block.
#include <cstdint>

#include "optim/optimizer.h"
#include "optim/segment_batch.cuh"
#include "optim/step_terms.cuh"
#include "optim/update_rules.h"
#include "optim/weight_access.cuh"
#include "runtime/base/simd.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"

namespace panthera::cuda {
namespace {

constexpr int kLanes = static_cast<int>(kSumLanes);
constexpr unsigned kThreads = 256;
constexpr int64_t kBlocksPerGrid = kThreads / kLanes;  // sum blocks of a thread block

// The lane of this thread among the 16 of its sum block, and that block's number in the shard.
__device__ int64_t LaneOfThread() { return threadIdx.x % kLanes; }
__device__ int64_t BlockOfThread(const SegmentBatch& batch) {
  return batch.first_block + static_cast<int64_t>(blockIdx.x) * kBlocksPerGrid +
         threadIdx.x / kLanes;
}
// Threads beyond the last sum block of a grid keep up with their warp in collectives.
__device__ KernelBlock BlockOrNone(const SegmentBatch& batch, int64_t index) {
  return index < batch.first_block + batch.num_blocks ? FindBlock(batch, index)
                                                      : KernelBlock{nullptr, 0, 0, 0};
}

// The sum over all terms of a block as SumTerms takes it: of use(i, load(i)) for each i in
// [0, count), called by the lane i % 16. Loads run ahead of uses, so `load` must not read what
// `use` writes for another i. All threads of the warp must call it.
template <typename Load, typename Use>
__device__ double SumOverLanes(int64_t count, const Load& load, const Use& use) {
  constexpr int kAhead = 8;
  const int64_t lane = LaneOfThread();
  // Both halves of a warp must come to each collective.
  int64_t rounds = CeilDiv(count, kSumBlock);
  const int64_t other = __shfl_xor_sync(kWholeWarp, static_cast<int>(rounds), kLanes);
  rounds = rounds > other ? rounds : other;
  double total = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t begin = round * kSumBlock;
    const int64_t end = begin + kSumBlock < count ? begin + kSumBlock : count;
    float sum = 0;
    for (int64_t first = begin + lane; first < end; first += kAhead * kLanes) {
      decltype(load(first)) loaded[kAhead];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (first + u * kLanes < end) {
          loaded[u] = load(first + u * kLanes);
        }
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        if (first + u * kLanes < end) {
          sum += use(first + u * kLanes, loaded[u]);
        }
      }
    }
    for (int half = kLanes / 2; half > 0; half /= 2) {
      sum += __shfl_down_sync(kWholeWarp, sum, static_cast<unsigned>(half), kLanes);
    }
    total += static_cast<double>(sum);
  }
  return total;
}

// The sum over ranks of element i of a shard, in rank order.
template <typename Gradient>
__device__ float SumOfRanks(const Gradient* contributions, int64_t ranks, int64_t row, int64_t i) {
  auto sum = static_cast<float>(contributions[i]);
  for (int64_t rank = 1; rank < ranks; ++rank) {
    sum += static_cast<float>(contributions[rank * row + i]);
  }
  return sum;
}

struct FoldOperands {
  float gradient;
  float momentum;
};

template <typename Gradient, typename State>
__global__ void FoldKernel(const __grid_constant__ SegmentBatch batch,
                           const Gradient* contributions, int64_t ranks, int64_t row,
                           State* momentum, float keep, float take, const uint8_t* left_out,
                           MicroStepPlace place, double* squares) {
  const int64_t index = BlockOfThread(batch);
  const KernelBlock block = BlockOrNone(batch, index);
  const bool folds = block.segment != nullptr && !IsLeftOut(left_out, *block.segment);
  const double sum = SumOverLanes(
      folds ? block.elements : 0,
      [&](int64_t i) -> FoldOperands {
        const int64_t at = block.shard_begin + i;
        return {SumOfRanks(contributions, ranks, row, at), static_cast<float>(momentum[at])};
      },
      [&](int64_t i, const FoldOperands& operands) {
        momentum[block.shard_begin + i] =
            static_cast<State>(FlushTiny(Blend(keep, operands.momentum, take, operands.gradient)));
        return operands.gradient * operands.gradient;
      });
  if (squares != nullptr && block.segment != nullptr && LaneOfThread() == 0) {
    squares[index] = place == MicroStepPlace::kFirst ? sum : squares[index] + sum;
  }
}

__global__ void SumSquaresKernel(const __grid_constant__ SegmentBatch batch, const float* values,
                                 double* squares) {
  const int64_t index = BlockOfThread(batch);
  const KernelBlock block = BlockOrNone(batch, index);
  const double sum = SumOverLanes(
      block.elements, [&](int64_t i) { return values[block.shard_begin + i]; },
      [](int64_t, float value) { return value * value; });
  if (block.segment != nullptr && LaneOfThread() == 0) {
    squares[index] = sum;
  }
}

// The sum of squares of `count` values as SumTerms takes it, by a team of kLanes / kPack threads:
// each has kPack neighbouring lanes. `load(i, values)` sets kPack values that begin at i, of which
// those from `count` on do not count. All threads of the warp must call it.
template <int kPack, typename Load>
__device__ double SumSquaresOfPacks(int64_t count, const Load& load) {
  constexpr int kTeam = kLanes / kPack;
  constexpr int kAhead = 8;
  const int64_t member = threadIdx.x % kTeam;
  // All teams of a warp must come to each collective.
  auto rounds = static_cast<int>(CeilDiv(count, kSumBlock));
  for (int distance = kTeam; distance < kWarpThreads; distance *= 2) {
    const int other = __shfl_xor_sync(kWholeWarp, rounds, distance);
    rounds = rounds > other ? rounds : other;
  }
  double total = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t begin = round * kSumBlock;
    const int64_t end = begin + kSumBlock < count ? begin + kSumBlock : count;
    float sums[kPack] = {};
    int64_t first = begin + member * kPack;
    for (; first + (kAhead - 1) * kLanes + kPack <= end; first += kAhead * kLanes) {
      float values[kAhead][kPack];
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
        load(first + u * kLanes, values[u]);
      }
#pragma unroll
      for (int u = 0; u < kAhead; ++u) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          sums[i] += values[u][i] * values[u][i];
        }
      }
    }
    for (; first < end; first += kLanes) {
      float values[kPack];
      load(first, values);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        if (first + i < end) {
          sums[i] += values[i] * values[i];
        }
      }
    }
#pragma unroll
    for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < kPack && i < half; ++i) {
        sums[i] += half < kPack ? sums[(i + half) % kPack]
                                : __shfl_down_sync(kWholeWarp, sums[i],
                                                   static_cast<unsigned>(half / kPack), kTeam);
      }
    }
    total += static_cast<double>(sums[0]);
  }
  return total;
}

template <int kPack, WeightStorage kStorage>
__global__ void SumWeightSquaresKernel(const __grid_constant__ SegmentBatch batch,
                                       WeightPointers weights, const int32_t* shrinks, double ratio,
                                       double* squares) {
  constexpr int kTeam = kLanes / kPack;
  const int64_t index =
      batch.first_block + (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kTeam;
  const KernelBlock block = BlockOrNone(batch, index);
  const Shrink shrink =
      block.segment != nullptr ? ShrinkOf(shrinks, ratio, *block.segment) : Shrink{};
  const double sum = SumSquaresOfPacks<kPack>(block.elements, [&](int64_t i, float(&theta)[kPack]) {
    ReadWeightPack<kStorage, kPack>(weights, block.shard_begin + i, theta);
    shrink.Apply(theta);
  });
  if (block.segment != nullptr && threadIdx.x % kTeam == 0) {
    squares[index] = sum;
  }
}

template <typename Gradient>
__global__ void MarkNonFiniteKernel(const __grid_constant__ SegmentBatch batch,
                                    const Gradient* contributions, int64_t ranks, int64_t row,
                                    int32_t* found) {
  const KernelBlock block = BlockOrNone(batch, BlockOfThread(batch));
  if (block.segment == nullptr) {
    return;
  }
  int32_t is_bad = 0;
#pragma unroll 8
  for (int64_t i = LaneOfThread(); i < block.elements; i += kLanes) {
    const float sum = SumOfRanks(contributions, ranks, row, block.shard_begin + i);
    // All exponent bits are set in infinities and NaNs, and in nothing else.
    is_bad |= (__float_as_uint(sum) & 0x7F800000U) == 0x7F800000U ? 1 : 0;
  }
  if (is_bad != 0) {
    atomicOr(&found[block.segment->place], 1);
  }
}

LaunchShape ShapeFor(const SegmentBatch& batch) {
  return {GridOf(CeilDiv(batch.num_blocks, kBlocksPerGrid)), dim3(kThreads)};
}

}  // namespace

void FoldGradient(Stream& stream, const ParameterStore& store, GroupId group,
                  const Tensor& contributions, const Tensor& state, double beta,
                  const FoldInput& input) {
  const bool first = input.place == MicroStepPlace::kFirst;
  const float keep = first ? static_cast<float>(beta) : 1.0F;
  const auto take = static_cast<float>((1 - beta) * input.weight);
  ForEachSegmentBatch(store, group, NoRule, [&](const SegmentBatch& batch) {
    DispatchFloat(contributions.dtype(), [&]<typename Gradient>() {
      DispatchFloat(state.dtype(), [&]<typename State>() {
        Launch(stream, ShapeFor(batch), &FoldKernel<Gradient, State>, batch,
               contributions.data<Gradient>(), contributions.size(0), contributions.size(1),
               state.data<State>(), keep, take, DataOrNull<uint8_t>(input.left_out), input.place,
               DataOrNull<double>(input.squares));
      });
    });
  });
}

void SumSquares(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& values,
                Tensor squares) {
  ForEachSegmentBatch(store, group, NoRule, [&](const SegmentBatch& batch) {
    Launch(stream, ShapeFor(batch), &SumSquaresKernel, batch, values.data<float>(),
           squares.data<double>());
  });
}

void SumWeightSquares(Stream& stream, const ParameterStore& store, GroupId group,
                      const Tensor& shrinks, double ratio, Tensor squares) {
  const WeightShard shard = store.shard(group);
  ForEachSegmentBatch(store, group, NoRule, [&](const SegmentBatch& batch) {
    DispatchStorage(shard.storage, [&]<WeightStorage kStorage>() {
      const auto launch = [&](auto pack) {
        constexpr int kPack = decltype(pack)::value;
        const int64_t blocks_of_grid = int64_t{kThreads} * kPack / kLanes;
        Launch(stream, {GridOf(CeilDiv(batch.num_blocks, blocks_of_grid)), dim3(kThreads)},
               &SumWeightSquaresKernel<kPack, kStorage>, batch, PointersTo(shard),
               DataOrNull<int32_t>(shrinks), ratio, squares.data<double>());
      };
      // Blocks begin at multiples of block_elements.
      constexpr int kPack = 4;
      if (batch.block_elements % kPack == 0) {
        launch(std::integral_constant<int, kPack>());
      } else {
        launch(std::integral_constant<int, 1>());
      }
    });
  });
}

void MarkNonFinite(Stream& stream, const ParameterStore& store, GroupId group,
                   const Tensor& contributions, Tensor found) {
  ForEachSegmentBatch(store, group, NoRule, [&](const SegmentBatch& batch) {
    DispatchFloat(contributions.dtype(), [&]<typename Gradient>() {
      Launch(stream, ShapeFor(batch), &MarkNonFiniteKernel<Gradient>, batch,
             contributions.data<Gradient>(), contributions.size(0), contributions.size(1),
             found.data<int32_t>());
    });
  });
}

}  // namespace panthera::cuda
