// The arithmetic between ranks in a build without CUDA. Nobody has a GPU to call it on.
#include "runtime/base/check.h"
#include "runtime/comm/cuda_kernels.h"

namespace panthera::cuda {

void SumRows(const Tensor&, float, Accumulate, Tensor, Stream&) {
  CHECK(false) << "this build has no CUDA";
}

}  // namespace panthera::cuda
