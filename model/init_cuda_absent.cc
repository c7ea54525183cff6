// Initial values on a GPU in a build without CUDA. Nobody has a GPU to set them on.
#include "model/init_cuda.h"
#include "runtime/base/check.h"

namespace panthera::cuda {

void InitializeSegment(Stream&, const WeightShard&, const ShardSegment&, const ParamSpec&,
                       uint64_t) {
  CHECK(false) << "this build has no CUDA";
}

}  // namespace panthera::cuda
