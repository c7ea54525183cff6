// The ops' kernels in a build without CUDA. Nobody has a GPU to call them on.
#include <cstdlib>

#include "runtime/base/check.h"
#include "runtime/math/cuda_kernels.h"

namespace panthera::cuda {
namespace {

[[noreturn]] void Absent() {
  CHECK(false) << "this build has no CUDA";
  std::abort();
}

}  // namespace

void AddSum(Stream&, const Tensor&, Tensor) { Absent(); }
void AddColumnSums(Stream&, const Tensor&, Tensor) { Absent(); }
void CountAbove(Stream&, float, const Tensor&, Tensor) { Absent(); }
void MaxAbs(Stream&, const Tensor&, Tensor) { Absent(); }
void RoundToBf16(Stream&, const Tensor&, Tensor) { Absent(); }
void RowSquares(Stream&, const Tensor&, Tensor) { Absent(); }
void Scale(Stream&, float, Tensor) { Absent(); }
void HashWords(Stream&, const Tensor&, int64_t, Tensor) { Absent(); }

}  // namespace panthera::cuda
