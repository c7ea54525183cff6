// The ops' kernels in a build without CUDA. Nobody has a GPU to call them on.
#include <cstdlib>

#include "model/ops/attention_choice.h"
#include "model/ops/attention_cuda.h"
#include "model/ops/cuda_kernels.h"
#include "runtime/base/check.h"

namespace panthera::cuda {
namespace {

[[noreturn]] void Absent() {
  CHECK(false) << "this build has no CUDA";
  std::abort();
}

}  // namespace

AttentionPlatform::HopperKernels HopperAttention() {
  return AttentionPlatform::HopperKernels::kAbsent;
}
void AttentionForward(Stream&, std::span<const AttentionBand>, const Heads&, float, Heads, Tensor,
                      KernelChoice) {
  Absent();
}
bool OverlapsQueries(std::span<const AttentionBand>, const Heads&) { Absent(); }
void AttentionBackward(Stream&, const Heads&, std::span<const AttentionBand>, const Heads&,
                       const Heads&, const Tensor&, float, const AttentionBackwardScratch&, Heads,
                       Heads, Heads, KernelChoice) {
  Absent();
}
void RmsNorm(Stream&, const Tensor&, const Tensor&, float, Tensor, Tensor) { Absent(); }
void AddRmsNorm(Stream&, const Tensor&, const Tensor&, const Tensor&, float, Tensor, Tensor,
                Tensor) {
  Absent();
}
void RmsNormBackward(Stream&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                     const std::optional<Tensor>&, Tensor, const Tensor&, const GradientTarget&) {
  Absent();
}
void SwiGlu(Stream&, const Tensor&, Tensor) { Absent(); }
void SwiGluBackward(Stream&, const Tensor&, const Tensor&, Tensor) { Absent(); }
void Rotate(Stream&, Rotation, const Heads&, const RotaryTable&, Heads) { Absent(); }
void Add(Stream&, const Tensor&, const Tensor&, Tensor) { Absent(); }
void SwapHalves(Stream&, const Tensor&, Tensor) { Absent(); }
void CopyHeads(Stream&, const Heads&, Heads) { Absent(); }
void EmbeddingForward(Stream&, const Tensor&, const Tensor&, int64_t, Tensor) { Absent(); }
void EmbeddingBackward(Stream&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t,
                       const GradientTarget&) {
  Absent();
}
void CrossEntropy(Stream&, Tensor, int64_t, const Tensor&, CrossEntropyOutput, float, Tensor) {
  Absent();
}
void TopOne(Stream&, const Tensor&, int64_t, const Tensor&, Tensor) { Absent(); }
void CrossEntropyPart(Stream&, const Tensor&, int64_t, int64_t, const Tensor&, Tensor) { Absent(); }
void CrossEntropyFromParts(Stream&, Tensor, int64_t, int64_t, const Tensor&, const Tensor&,
                           CrossEntropyOutput, float, Tensor) {
  Absent();
}
void TopOneFromParts(Stream&, const Tensor&, Tensor) { Absent(); }

}  // namespace panthera::cuda
