#include "optim/step_verdict.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "optim/cuda_kernels.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

// What fits into a kernel's arguments.
constexpr int kMostRuns = 64;
constexpr int kMostParams = 512;

struct RunBatch {
  BlockRun runs[kMostRuns];
};
struct ParamBatch {
  int32_t count;
  int32_t params[kMostParams];
};

// value(0) + value(1) + ... in double by index, in every thread of the warp; all must call it. The
// threads load side by side and add one after the other.
template <typename Value>
__device__ double SumInOrder(int64_t count, const Value& value) {
  const auto lane = static_cast<int64_t>(threadIdx.x % kWarpThreads);
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kWarpThreads) {
    const int64_t left = count - begin;
    const int terms = left < kWarpThreads ? static_cast<int>(left) : kWarpThreads;
    const double own = lane < terms ? value(begin + lane) : 0.0;
    for (int i = 0; i < terms; ++i) {
      total += __shfl_sync(kWholeWarp, own, i);
    }
  }
  return total;
}

constexpr unsigned kRunThreads = 512;
constexpr int kTermsOfThread = 8;
constexpr int kTermsOfChunk = kTermsOfThread * static_cast<int>(kRunThreads);

// The largest power of two of which x is a multiple: infinity of 0, and less than nothing of what
// is negative.
__device__ double UnitOf(double x) {
  if (!(x > 0)) {
    return x == 0 ? INFINITY : -INFINITY;
  }
  const auto bits = std::bit_cast<uint64_t>(x);
  const bool is_power = (bits & ((uint64_t{1} << 52) - 1)) == 0;
  return is_power ? x : x - std::bit_cast<double>(bits & (bits - 1));
}

// Whether numbers that are not negative, multiples of `unit`, and have this sum, rounded or not,
// add up without rounding in any order: no partial sum exceeds 2^53 units.
__device__ bool IsExact(double sum, double unit) { return sum <= 0x1p52 * unit; }

// total + value(0) + value(1) + ... by index, for a block of kRunThreads, in every thread. Terms
// whose sums need no rounding are added side by side, which gives the same bits; others one after
// the other.
template <typename Value>
__device__ double SumOfBlockInOrder(int64_t count, const Value& value) {
  PANTHERA_SHARED_ARRAY(double, scratch, kMostWarps);
  PANTHERA_SHARED_ARRAY(double, terms, kTermsOfChunk);
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kTermsOfChunk) {
    double own[kTermsOfThread];
    double sum = 0;
    double unit = INFINITY;
#pragma unroll
    for (int k = 0; k < kTermsOfThread; ++k) {
      const int64_t i = begin + k * int64_t{kRunThreads} + threadIdx.x;
      own[k] = i < count ? value(i) : 0.0;
    }
#pragma unroll
    for (int k = 0; k < kTermsOfThread; ++k) {
      const double own_unit = UnitOf(own[k]);
      sum += own[k];
      unit = own_unit < unit ? own_unit : unit;
    }
    sum = total + BlockSum(sum, scratch);
    unit = fmin(BlockMin(unit, scratch), UnitOf(total));
    if (IsExact(sum, unit)) {
      total = sum;
      continue;
    }
#pragma unroll
    for (int k = 0; k < kTermsOfThread; ++k) {
      terms[k * kRunThreads + threadIdx.x] = own[k];
    }
    __syncthreads();
    const int64_t left = count - begin < kTermsOfChunk ? count - begin : kTermsOfChunk;
    for (int64_t i = 0; i < left; ++i) {
      total += terms[i];
    }
    __syncthreads();
  }
  return total;
}

// A block for each run.
__global__ void __launch_bounds__(kRunThreads)
    SumBlockRunsKernel(const __grid_constant__ RunBatch batch, double* param_sums) {
  const BlockRun& run = batch.runs[blockIdx.x];
  const double sum = SumOfBlockInOrder(run.num_blocks, [&](int64_t i) {
    const int64_t block = run.first_block + i;
    // Divisions of 64 bits are slow.
    if (block < run.shard_blocks) {
      return run.sums[block];
    }
    return run.sums[block / run.shard_blocks * run.row + block % run.shard_blocks];
  });
  if (threadIdx.x == 0) {
    param_sums[run.param] = sum;
  }
}

__global__ void MergeFlagsKernel(const __grid_constant__ ParamBatch batch, const int32_t* gathered,
                                 int64_t ranks, int64_t row, uint8_t* flags, int32_t* counts) {
  const auto i = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= batch.count) {
    return;
  }
  int32_t found = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    found |= gathered[rank * row + i];
  }
  const int32_t flag = found != 0 ? 1 : 0;
  flags[batch.params[i]] = static_cast<uint8_t>(flag);
  counts[batch.params[i]] += flag;
}

struct VerdictArguments {
  const double* losses;
  int64_t ranks;
  const double* param_sums;
  int64_t params;
  int64_t targets;
  double norm_divisor;
  double clip_norm;
  NonFinitePolicy policy;
};

// One warp.
__global__ void JudgeStepKernel(VerdictArguments input, uint8_t* flags, StepVerdict* verdict) {
  const double loss = SumInOrder(input.ranks, [&](int64_t i) { return input.losses[i]; });
  const double squares = SumInOrder(input.params, [&](int64_t i) { return input.param_sums[i]; });
  const StepVerdict result =
      VerdictOn(loss, squares, input.targets, input.norm_divisor, input.clip_norm, input.policy);
  if (result.is_skipped != 0) {
    for (int64_t i = threadIdx.x; i < input.params; i += kWarpThreads) {
      flags[i] = 1;
    }
  }
  if (threadIdx.x == 0) {
    *verdict = result;
  }
}

}  // namespace

void SumBlockRuns(Stream& stream, std::span<const BlockRun> runs, Tensor param_sums) {
  for (size_t begin = 0; begin < runs.size(); begin += kMostRuns) {
    const size_t count = std::min(runs.size() - begin, size_t{kMostRuns});
    RunBatch batch{};
    std::copy_n(runs.begin() + static_cast<ptrdiff_t>(begin), count, batch.runs);
    Launch(stream, {GridOf(static_cast<int64_t>(count)), dim3(kRunThreads)}, &SumBlockRunsKernel,
           batch, param_sums.data<double>());
  }
}

void MergeFlags(Stream& stream, std::span<const ParamId> params, const Tensor& gathered,
                Tensor flags, Tensor counts) {
  constexpr int64_t kThreads = 128;
  const int64_t row = gathered.size(1);
  for (size_t begin = 0; begin < params.size(); begin += kMostParams) {
    const size_t count = std::min(params.size() - begin, size_t{kMostParams});
    ParamBatch batch{};
    batch.count = static_cast<int32_t>(count);
    for (size_t i = 0; i < count; ++i) {
      batch.params[i] = params[begin + i].index;
    }
    Launch(stream, {GridOf(CeilDiv(batch.count, kThreads)), dim3(kThreads)}, &MergeFlagsKernel,
           batch, gathered.data<int32_t>() + begin, gathered.size(0), row, flags.data<uint8_t>(),
           counts.data<int32_t>());
  }
}

void JudgeStep(Stream& stream, const VerdictInput& input, Tensor flags, Tensor verdict) {
  const VerdictArguments arguments = {
      .losses = input.losses.data<double>(),
      .ranks = input.losses.elements(),
      .param_sums = input.param_sums.data<double>(),
      .params = input.param_sums.elements(),
      .targets = input.targets,
      .norm_divisor = input.norm_divisor,
      .clip_norm = input.clip_norm,
      .policy = input.policy,
  };
  Launch(stream, {dim3(1), dim3(kWarpThreads)}, &JudgeStepKernel, arguments,
         flags.elements() > 0 ? flags.data<uint8_t>() : nullptr,
         reinterpret_cast<StepVerdict*>(verdict.bytes_data()));
}

}  // namespace panthera::cuda
