#include "model/ops/attention_kernels.cuh"

namespace panthera::cuda {

AttentionPlatform::HopperKernels HopperAttention() {
  return AttentionPlatform::HopperKernels::kBuilt;
}

}  // namespace panthera::cuda
