#include "optim/seen_rows.h"

#include <cstdint>

#include "optim/cuda_kernels.h"
#include "runtime/device/launch.cuh"

namespace panthera::cuda {
namespace {

constexpr int64_t kThreads = 256;

__device__ int64_t IndexOfThread() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void MarkRowsKernel(const int32_t* tokens, int64_t count, int32_t* bits) {
  const int64_t i = IndexOfThread();
  if (i < count) {
    const int32_t row = tokens[i];
    atomicOr(&bits[row / kRowsPerWord], static_cast<int32_t>(1U << (row % kRowsPerWord)));
  }
}

// A thread for each row: those of a warp read the same word of each rank.
__global__ void MergeRowsKernel(const int32_t* gathered, int64_t ranks, int64_t words,
                                int64_t count, uint8_t* rows) {
  const int64_t row = IndexOfThread();
  if (row >= count) {
    return;
  }
  uint32_t merged = 0;
#pragma unroll 4
  for (int64_t rank = 0; rank < ranks; ++rank) {
    merged |= static_cast<uint32_t>(gathered[rank * words + row / kRowsPerWord]);
  }
  rows[row] = static_cast<uint8_t>(merged >> (row % kRowsPerWord) & 1U);
}

}  // namespace

void MarkRows(Stream& stream, const Tensor& tokens, Tensor bits) {
  const int64_t count = tokens.elements();
  Launch(stream, {GridOf(CeilDiv(count, kThreads)), dim3(kThreads)}, &MarkRowsKernel,
         tokens.data<int32_t>(), count, bits.data<int32_t>());
}

void MergeRows(Stream& stream, const Tensor& gathered, Tensor rows) {
  const int64_t count = rows.elements();
  Launch(stream, {GridOf(CeilDiv(count, kThreads)), dim3(kThreads)}, &MergeRowsKernel,
         gathered.data<int32_t>(), gathered.size(0), gathered.size(1), count, rows.data<uint8_t>());
}

}  // namespace panthera::cuda
