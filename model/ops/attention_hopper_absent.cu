// In a build without kernels for Hopper: nobody is told to launch them.
#include <cstdlib>

#include "model/ops/attention_kernels.cuh"
#include "runtime/base/check.h"

namespace panthera::cuda {
namespace {

[[noreturn]] void Absent() {
  CHECK(false) << "this build has no kernels for Hopper";
  std::abort();
}

}  // namespace

AttentionPlatform::HopperKernels HopperAttention() {
  return AttentionPlatform::HopperKernels::kAbsent;
}
void LaunchHopperForward(Stream&, const ForwardArguments<BF16>&, int64_t) { Absent(); }
void LaunchHopperQueryGradient(Stream&, const BackwardArguments<BF16>&, int64_t) { Absent(); }
void LaunchHopperKeyGradient(Stream&, const BackwardArguments<BF16>&, int64_t) { Absent(); }

}  // namespace panthera::cuda
