// Attention on a GPU: contracts, shapes and checks are those of attention.h; these only enqueue
// kernels on `stream`.
//
// bf16 heads of width 64 or 128 whose rows begin at multiples of 16 bytes go to the tensor cores,
// on Hopper to kernels of its own; all others to kernels with a warp per row (attention_choice.h).
// All work through the keys with a running maximum (Dao et al. 2022, arXiv:2205.14135) in an order
// that sizes alone determine, without atomics: the same bits in every run on the same kind of GPU.
// On the tensor cores probabilities and their gradients are rounded to bf16 for the products that
// they enter; all sums are fp32.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_CUDA_H_
#define PANTHERA_MODEL_OPS_ATTENTION_CUDA_H_

#include <cstdint>
#include <optional>
#include <span>

#include "model/ops/attention.h"
#include "model/ops/attention_choice.h"
#include "model/ops/heads.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera::cuda {

// What the kernels can count; a call with more aborts.
inline constexpr int kMostAttentionBands = 4;
inline constexpr int64_t kMostAttentionKeys = int64_t{1} << 30;
inline constexpr int64_t kMostAttentionWidth = 256;

void AttentionForward(Stream& stream, std::span<const AttentionBand> bands, const Heads& v,
                      float scale, Heads out, Tensor lse,
                      KernelChoice choice = KernelChoice::kFastest);

// Memory of the backward pass, overwritten: 4 * B * H * Tq bytes for delta.
struct AttentionBackwardScratch {
  Tensor delta;  // [B, H, Tq] kF32: <dout, out> of every query
  // Where dq waits until the kernel that needs the bands' q has run, before it is copied to its
  // place; [B, Tq, H, D] of the type of q. Needed only if dq overlaps the q of a band.
  std::optional<Tensor> dq = std::nullopt;
};
// Whether dq shares memory with the q of a band, as far as whole matrices show.
bool OverlapsQueries(std::span<const AttentionBand> bands, const Heads& dq);

void AttentionBackward(Stream& stream, const Heads& dout, std::span<const AttentionBand> bands,
                       const Heads& v, const Heads& out, const Tensor& lse, float scale,
                       const AttentionBackwardScratch& scratch, Heads dq, Heads dk, Heads dv,
                       KernelChoice choice = KernelChoice::kFastest);

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_CUDA_H_
