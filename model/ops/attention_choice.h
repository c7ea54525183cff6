// Which kernels of attention work on a GPU: by its compute capability, and by where the heads lie.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_CHOICE_H_
#define PANTHERA_MODEL_OPS_ATTENTION_CHOICE_H_

#include <cstdint>
#include <initializer_list>
#include <span>

#include "model/ops/attention.h"
#include "model/ops/heads.h"
#include "runtime/device/cuda_device.h"

namespace panthera::cuda {

enum class AttentionKernels : uint8_t {
  kRows,         // a warp per row; heads of any place and width, of both float types
  kTensorCores,  // products of warps, on every GPU
  kHopper,       // products of warpgroups and bulk copies
};

// The fastest kernels that there are, or of these the ones that run on every GPU.
enum class KernelChoice : uint8_t { kFastest, kPortable };

// What decides besides the heads. Kernels for Hopper run on compute capability 9.0 only, and a
// build has them if it compiles for architecture 90a.
struct AttentionPlatform {
  enum class HopperKernels : uint8_t { kBuilt, kAbsent };

  ComputeCapability capability;
  HopperKernels hopper;
  KernelChoice choice = KernelChoice::kFastest;
};

// Whether this build has kernels for Hopper.
AttentionPlatform::HopperKernels HopperAttention();

// For the q and k of all bands and `others`, of which there is at least one.
//
// The tensor cores take bf16 of width 64 or 128 whose rows begin at multiples of 16 bytes. Hopper's
// kernels take the same, with any bands, but sequences of less than 2^40 bytes, which bulk copies
// can address.
AttentionKernels ChooseAttentionKernels(std::span<const AttentionBand> bands,
                                        std::initializer_list<const Heads*> others,
                                        const AttentionPlatform& platform);

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_CHOICE_H_
