#include "runtime/comm/reduce.h"

#include <cstdint>

#include "runtime/base/shape.h"
#include "runtime/comm/cuda_kernels.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;

// One thread per pack of columns, so that the rows are added in their order. The fp32 result of a
// pack of bf16 is two packs, the bf16 result of a pack of fp32 half of one.
template <typename T, typename Out, int kPack>
__global__ void SumRowsKernel(const T* rows, int64_t num_rows, int64_t width, float scale,
                              Accumulate accumulate, Out* out) {
  constexpr int kWhole = static_cast<int>(kPackBytes / sizeof(Out));
  constexpr int kStored = kPack < kWhole ? kPack : kWhole;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kPack;
  if (column >= width) {
    return;
  }
  auto sum = Pack<T, kPack>::Load(rows + column);
#pragma unroll 4
  for (int64_t row = 1; row < num_rows; ++row) {
    const auto added = Pack<T, kPack>::Load(rows + row * width + column);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      sum.values[i] += added.values[i];
    }
  }
#pragma unroll
  for (int begin = 0; begin < kPack; begin += kStored) {
    using Result = Pack<Out, kStored>;
    Out* const place = out + column + begin;
    Result result = {};
    if (accumulate == Accumulate::kAdd) {
      result = Result::Load(place);
    }
#pragma unroll
    for (int i = 0; i < kStored; ++i) {
      const float scaled = scale * sum.values[begin + i];
      result.values[i] = accumulate == Accumulate::kAdd ? result.values[i] + scaled : scaled;
    }
    result.Store(place);
  }
}

}  // namespace

void SumRows(const Tensor& contributions, float scale, Accumulate accumulate, Tensor out,
             Stream& stream) {
  const int64_t width = out.elements();
  const bool is_packable = IsPackable(width, contributions, out);
  DispatchPack(contributions.dtype(), is_packable, [&]<typename T, int kPack>() {
    DispatchFloat(out.dtype(), [&]<typename Out>() {
      Launch(stream, {GridOf(CeilDiv(width / kPack, int64_t{kThreads})), dim3(kThreads)},
             &SumRowsKernel<T, Out, kPack>, contributions.data<T>(), contributions.size(0), width,
             scale, accumulate, out.data<Out>());
    });
  });
}

}  // namespace panthera::cuda
