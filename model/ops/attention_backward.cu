#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "model/ops/attention_kernels.cuh"
#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"

namespace panthera::cuda {
namespace {

bool Overlap(const Tensor& a, const Tensor& b) {
  return a.bytes_data() < b.bytes_data() + b.bytes() && b.bytes_data() < a.bytes_data() + a.bytes();
}

}  // namespace

bool OverlapsQueries(std::span<const AttentionBand> bands, const Heads& dq) {
  return std::any_of(bands.begin(), bands.end(),
                     [&](const AttentionBand& band) { return Overlap(band.q.matrix, dq.matrix); });
}

void AttentionBackward(Stream& stream, const Heads& dout, std::span<const AttentionBand> bands,
                       const Heads& v, const Heads& out, const Tensor& lse, float scale,
                       const AttentionBackwardScratch& scratch, Heads dq, Heads dk, Heads dv,
                       KernelChoice choice) {
  if (out.batch * out.heads * out.tokens == 0) {
    return;
  }
  const bool waits = OverlapsQueries(bands, dq);
  CHECK(!waits || scratch.dq.has_value()) << "dq overlaps the queries and needs scratch";
  const Heads dq_now = waits ? Heads(*scratch.dq) : dq;
  CheckHeads(dq_now, out.batch, out.tokens, out.heads, out.width);
  CHECK_SHAPE(scratch.delta, out.batch, out.heads, out.tokens);
  DispatchFloat(out.dtype(), [&]<typename T>() {
    const BackwardArguments<T> arguments{.attention = View<T>(bands, v, out, scale),
                                         .dout = View<const T>(dout),
                                         .out = View<const T>(out),
                                         .lse = lse.data<float>(),
                                         .delta = scratch.delta.data<float>(),
                                         .dq = View<T>(dq_now),
                                         .dk = View<T>(dk),
                                         .dv = View<T>(dv)};
    if constexpr (std::is_same_v<T, BF16>) {
      switch (ChooseAttentionKernels(bands, {&v, &out, &dout, &dq_now, &dk, &dv},
                                     PlatformOf(stream, choice))) {
        case AttentionKernels::kHopper:
          LaunchHopperQueryGradient(stream, arguments, out.batch);
          LaunchHopperKeyGradient(stream, arguments, out.batch);
          return;
        case AttentionKernels::kTensorCores:
          LaunchQueryGradient(stream, arguments, out.batch);
          LaunchKeyGradient(stream, arguments, out.batch);
          return;
        case AttentionKernels::kRows:
          break;
      }
    }
    LaunchQueryGradientRows(stream, arguments, out.batch);
    LaunchKeyGradientRows(stream, arguments, out.batch);
  });
  if (waits) {
    CopyHeads(stream, dq_now, dq);
  }
}

}  // namespace panthera::cuda
