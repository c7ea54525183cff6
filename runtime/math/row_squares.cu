#include "runtime/math/row_squares.h"

#include <cstdint>

#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/math/cuda_kernels.h"

namespace panthera::cuda {
namespace {

constexpr int64_t kWarps = 8;

// A warp for each row.
template <typename T, int kPack>
__global__ void RowSquaresKernel(const T* x, int64_t rows, int64_t width, double* squares) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpThreads;
  const int64_t lane = threadIdx.x % kWarpThreads;
  double mine = 0;
  if (row < rows) {
    for (int64_t i = lane * kPack; i < width; i += kWarpThreads * kPack) {
      const auto value = Pack<T, kPack>::Load(x + row * width + i);
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const auto wide = static_cast<double>(value.values[j]);
        mine += wide * wide;
      }
    }
  }
  mine = WarpSum(mine);
  if (lane == 0 && row < rows) {
    squares[row] = mine;
  }
}

}  // namespace

void RowSquares(Stream& stream, const Tensor& x, Tensor squares) {
  const int64_t rows = squares.elements();
  if (rows == 0) {
    return;
  }
  const int64_t width = x.size(1);
  DispatchPack(x.dtype(), IsPackable(width, x), [&]<typename T, int kPack>() {
    Launch(stream, {GridOf(CeilDiv(rows, kWarps)), dim3(kWarps * kWarpThreads)},
           &RowSquaresKernel<T, kPack>, x.data<T>(), rows, width, squares.data<double>());
  });
}

}  // namespace panthera::cuda
