#include "optim/step_verdict.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "optim/cuda_kernels.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"

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

// A warp for each run.
__global__ void SumBlockRunsKernel(const __grid_constant__ RunBatch batch, double* param_sums) {
  const BlockRun& run = batch.runs[blockIdx.x];
  const double sum = SumInOrder(run.num_blocks, [&](int64_t i) {
    const int64_t block = run.first_block + i;
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
    Launch(stream, {GridOf(static_cast<int64_t>(count)), dim3(kWarpThreads)}, &SumBlockRunsKernel,
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
