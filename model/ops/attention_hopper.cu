#include "model/ops/attention_choice.h"

namespace panthera::cuda {

AttentionPlatform::HopperKernels HopperAttention() {
  return AttentionPlatform::HopperKernels::kBuilt;
}

}  // namespace panthera::cuda
