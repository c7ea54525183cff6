#ifndef PANTHERA_RUNTIME_MATH_CUBLAS_LT_GEMM_H_
#define PANTHERA_RUNTIME_MATH_CUBLAS_LT_GEMM_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"

#include "runtime/device/stream.h"
#include "runtime/math/gemm.h"
#include "runtime/math/gemm_algorithms.h"

namespace panthera {

// Products on a GPU by cuBLASLt, for GemmEngine. In a build without CUDA it cannot be constructed.
//
// The algorithm of each product is chosen at its first call and kept: the one that it was told to
// use, else the first that the library proposes. Algorithms that add partial sums in the output's
// type are never proposed, so sums are fp32 throughout. fp32 operands are multiplied in fp32 (no
// TF32).
class CublasLtGemm {
 public:
  // What a product may use as scratch; the algorithms are chosen for it.
  static constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

  explicit CublasLtGemm(Device device);
  CublasLtGemm(const CublasLtGemm&) = delete;
  CublasLtGemm& operator=(const CublasLtGemm&) = delete;
  ~CublasLtGemm();

  // Enqueues a product whose sizes have been checked and are not 0. `workspace`: kWorkspaceBytes on
  // the device, which no other work uses at the same time; therefore `stream` must always be the
  // same one.
  void Enqueue(Stream& stream, const Product& product, std::byte* workspace);

  // See GemmEngine.
  const GemmAlgorithmLibrary& library() const;
  absl::Status UseAlgorithms(const GemmAlgorithms& algorithms);
  GemmAlgorithm FastestAlgorithm(Stream& stream, const Product& product, std::byte* workspace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_CUBLAS_LT_GEMM_H_
