// cuBLASLt in a build without CUDA. Nobody has a GPU to multiply on.
#include <cstdlib>

#include "runtime/base/check.h"
#include "runtime/math/cublas_lt_gemm.h"

namespace panthera {

class CublasLtGemm::Impl {};

CublasLtGemm::CublasLtGemm(Device /*device*/) { CHECK(false) << "this build has no CUDA"; }
CublasLtGemm::~CublasLtGemm() = default;

void CublasLtGemm::Enqueue(Stream& /*stream*/, const Product& /*product*/,
                           std::byte* /*workspace*/) {
  std::abort();
}
const GemmAlgorithmLibrary& CublasLtGemm::library() const { std::abort(); }
absl::Status CublasLtGemm::UseAlgorithms(const GemmAlgorithms& /*algorithms*/) { std::abort(); }
GemmAlgorithm CublasLtGemm::FastestAlgorithm(Stream& /*stream*/, const Product& /*product*/,
                                             std::byte* /*workspace*/) {
  std::abort();
}

}  // namespace panthera
