// The ops of this folder on a GPU: contracts, shapes and checks are those of the op with the same
// name; these only enqueue kernels on `stream`. In a build without CUDA they abort.
#ifndef PANTHERA_MODEL_OPS_CUDA_KERNELS_H_
#define PANTHERA_MODEL_OPS_CUDA_KERNELS_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>

#include "model/ops/cross_entropy.h"
#include "model/ops/rope.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/params/gradient_sink.h"

namespace panthera::cuda {

// rmsnorm.cu, rmsnorm_backward.cu. Rows whose gain gradients are summed first; of these sums every
// 32nd are added by index, and then the 32 sums of sums: constants, so that the bits do not depend
// on the GPU.
inline constexpr int64_t kGainBlockRows = 32;
void RmsNorm(Stream& stream, const Tensor& x, const Tensor& gain, float eps, Tensor y, Tensor rstd);
void AddRmsNorm(Stream& stream, const Tensor& x, const Tensor& branch, const Tensor& gain,
                float eps, Tensor sum, Tensor y, Tensor rstd);
//   partials [ceil(N / kGainBlockRows), C] fp32, overwritten
void RmsNormBackward(Stream& stream, const Tensor& dy, const Tensor& x, const Tensor& gain,
                     const Tensor& rstd, const std::optional<Tensor>& dresidual, Tensor dx,
                     const Tensor& partials, const GradientTarget& dgain);

// swiglu.cu
void SwiGlu(Stream& stream, const Tensor& gate_up, Tensor out);
void SwiGluBackward(Stream& stream, const Tensor& dout, const Tensor& gate_up, Tensor dgate_up);

// rope.cu
void Rotate(Stream& stream, Rotation rotation, const Heads& x, const RotaryTable& table, Heads out);

// rows.cu
void Add(Stream& stream, const Tensor& a, const Tensor& b, Tensor out);
void SwapHalves(Stream& stream, const Tensor& x, Tensor out);
void CopyHeads(Stream& stream, const Heads& x, Heads out);

// embedding.cu
void EmbeddingForward(Stream& stream, const Tensor& tokens, const Tensor& table,
                      int64_t first_token, Tensor out);
// Contributions to a row are added by ascending position inside runs of kEmbeddingRun positions
// that are sorted by token, then over the runs.
//   keys      [EmbeddingKeys(N)] kI64, overwritten
//   partials  [ceil(N / kEmbeddingRun), 2, C] fp32, overwritten
inline constexpr int64_t kEmbeddingRun = 128;
// Keys that one block sorts by itself.
inline constexpr int64_t kEmbeddingSortBlock = 2048;
inline int64_t EmbeddingKeys(int64_t positions) {
  return std::max<int64_t>(kEmbeddingSortBlock,
                           static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(positions))));
}
void EmbeddingBackward(Stream& stream, const Tensor& tokens, const Tensor& dout, const Tensor& keys,
                       const Tensor& partials, int64_t first_token, const GradientTarget& dtable);

// cross_entropy.cu
void CrossEntropy(Stream& stream, Tensor logits, int64_t vocab_size, const Tensor& targets,
                  CrossEntropyOutput output, float gradient_scale, Tensor losses);
void TopOne(Stream& stream, const Tensor& logits, int64_t vocab_size, const Tensor& targets,
            Tensor correct);

// cross_entropy_parts.cu
void CrossEntropyPart(Stream& stream, const Tensor& logits, int64_t first_token, int64_t vocab_size,
                      const Tensor& targets, Tensor parts);
void CrossEntropyFromParts(Stream& stream, Tensor logits, int64_t first_token, int64_t vocab_size,
                           const Tensor& targets, const Tensor& parts, CrossEntropyOutput output,
                           float gradient_scale, Tensor losses);
void TopOneFromParts(Stream& stream, const Tensor& parts, Tensor correct);

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_CUDA_KERNELS_H_
