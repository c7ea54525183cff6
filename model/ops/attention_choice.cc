#include "model/ops/attention_choice.h"

#include <algorithm>

#include "runtime/base/dtype.h"

namespace panthera::cuda {
namespace {

AttentionKernels Most(const Heads& heads) {
  constexpr int64_t kChunkBytes = 16;
  constexpr int64_t kMostSequenceBytes = int64_t{1} << 40;
  const int64_t row_bytes = heads.row_stride() * SizeOf(DType::kBF16);
  if (heads.dtype() != DType::kBF16 || (heads.width != 64 && heads.width != 128) ||
      row_bytes % kChunkBytes != 0 ||
      reinterpret_cast<uintptr_t>(heads.at<BF16>(0, 0, 0)) % kChunkBytes != 0) {
    return AttentionKernels::kRows;
  }
  return heads.tokens < kMostSequenceBytes / row_bytes ? AttentionKernels::kHopper
                                                       : AttentionKernels::kTensorCores;
}

}  // namespace

AttentionKernels ChooseAttentionKernels(std::span<const AttentionBand> bands,
                                        std::initializer_list<const Heads*> others,
                                        const AttentionPlatform& platform) {
  const bool is_hopper = platform.capability == ComputeCapability{9, 0} &&
                         platform.hopper == AttentionPlatform::HopperKernels::kBuilt &&
                         platform.choice == KernelChoice::kFastest;
  AttentionKernels kernels = is_hopper ? AttentionKernels::kHopper : AttentionKernels::kTensorCores;
  for (const Heads* heads : others) {
    kernels = std::min(kernels, Most(*heads));
  }
  for (const AttentionBand& band : bands) {
    kernels = std::min({kernels, Most(band.q), Most(band.k)});
  }
  return kernels;
}

}  // namespace panthera::cuda
