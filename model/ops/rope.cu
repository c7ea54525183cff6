#include "model/ops/rope.h"

#include <cstdint>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct RotateArguments {
  const float* cos;  // [tokens, width / 2]
  const float* sin;
  int64_t tokens;
  int64_t heads;
  int64_t half;  // width / 2
  int64_t x_stride;
  int64_t out_stride;
  float direction;  // 1, or -1 for the inverse
};

// One thread per pack of a head's first half, with the pack of the second half that turns with it.
template <typename T, int kPack>
__global__ void RotateKernel(const T* x, int64_t packs, RotateArguments arguments, T* out) {
  using Elements = Pack<T, kPack>;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= packs) {
    return;
  }
  const int64_t half = arguments.half;
  const int64_t c = index * kPack % half;
  const int64_t head = index * kPack / half % arguments.heads;
  const int64_t row = index * kPack / half / arguments.heads;
  const int64_t pair = row % arguments.tokens * half + c;
  const int64_t column = head * 2 * half + c;
  const Elements first = Elements::Load(x + row * arguments.x_stride + column);
  const Elements second = Elements::Load(x + row * arguments.x_stride + column + half);
  Elements turned_first;
  Elements turned_second;
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const float cos = arguments.cos[pair + i];
    const float sin = arguments.direction * arguments.sin[pair + i];
    turned_first.values[i] = first.values[i] * cos - second.values[i] * sin;
    turned_second.values[i] = second.values[i] * cos + first.values[i] * sin;
  }
  turned_first.Store(out + row * arguments.out_stride + column);
  turned_second.Store(out + row * arguments.out_stride + column + half);
}

}  // namespace

void Rotate(Stream& stream, Rotation rotation, const Heads& x, const RotaryTable& table,
            Heads out) {
  const int64_t half = x.width / 2;
  const RotateArguments arguments{.cos = table.cos.data<float>(),
                                  .sin = table.sin.data<float>(),
                                  .tokens = x.tokens,
                                  .heads = x.heads,
                                  .half = half,
                                  .x_stride = x.row_stride(),
                                  .out_stride = out.row_stride(),
                                  .direction = rotation == Rotation::kForward ? 1.0F : -1.0F};
  // Every run of `half` elements must begin at a multiple of the pack.
  const bool is_packable =
      IsPackable(half, x.matrix, out.matrix) && IsPackable(x.row_stride(), x.matrix) &&
      IsPackable(out.row_stride(), out.matrix) && IsPackable(x.first_column, x.matrix) &&
      IsPackable(out.first_column, out.matrix);
  DispatchPack(x.dtype(), is_packable, [&]<typename T, int kPack>() {
    const int64_t packs = x.batch * x.tokens * x.heads * half / kPack;
    Launch(stream, {GridOf(CeilDiv(packs, int64_t{kThreads})), dim3(kThreads)},
           &RotateKernel<T, kPack>, x.at<T>(0, 0, 0), packs, arguments, out.at<T>(0, 0, 0));
  });
}

}  // namespace panthera::cuda
