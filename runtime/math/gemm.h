// The one contract for matrix products. On the CPU they come from oneDNN, on a GPU from cuBLASLt.
#ifndef PANTHERA_RUNTIME_MATH_GEMM_H_
#define PANTHERA_RUNTIME_MATH_GEMM_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"

#include "runtime/device/device.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"
#include "runtime/math/matrix.h"

namespace panthera {

class GemmAlgorithms;
struct GemmAlgorithmLibrary;

// As the library keeps the way in which it computes a product; opaque.
using GemmAlgorithm = std::array<uint64_t, 8>;

enum class Transpose : uint8_t { kNo, kYes };
enum class Accumulate : uint8_t { kOverwrite, kAdd };

// c = op(a) op(b), or c += op(a) op(b) with kAdd; op transposes each matrix of a batch if asked to.
//
//   op(a) [m, k], op(b) [k, n], c [m, n], the same batch size everywhere
//   a, b  the same type, fp32 or bf16;  c fp32 or bf16, and not overlapping a or b
//
// Products are summed in fp32 and rounded to c's type once. The same product on the same machine
// with the same number of threads gives the same bits, wherever it lies in memory. Where the
// machine has no bf16 instructions, bf16 operands are widened to fp32 first. On a GPU fp32 operands
// have an fp32 result, and the bits depend on the algorithm (gemm_algorithms.h), which depends on
// an address only where it is aligned to less than 16 bytes.
struct Product {
  Transpose transpose_a;
  Matrix a;
  Transpose transpose_b;
  Matrix b;
  Accumulate accumulate;
  Matrix c;
};

// Computes a product with scratch from the arena.
void Gemm(Context& ctx, const Product& product);
void Gemm(Context& ctx, Transpose transpose_a, const Matrix& a, Transpose transpose_b,
          const Matrix& b, Accumulate accumulate, const Matrix& c);

// For products inside a ParallelFor body, where the arena must not be used: the scratch that one
// such product needs, and the product with scratch [GemmScratchBytes] kU8 that the caller provides,
// one for each thread. Both may be called from several threads at once.
int64_t GemmScratchBytes(Context& ctx, const Product& product);
void GemmInScratch(Context& ctx, const Product& product, const Tensor& scratch);

// The library's handles and its compiled products, one set per rank.
class GemmEngine {
 public:
  // Whether bf16 products use the machine's bf16 instructions or are widened to fp32.
  enum class Bf16 : uint8_t { kAsTheMachineCan, kWidened };

  explicit GemmEngine(Device target, Bf16 bf16 = Bf16::kAsTheMachineCan);
  GemmEngine(const GemmEngine&) = delete;
  GemmEngine& operator=(const GemmEngine&) = delete;
  ~GemmEngine();

  int64_t ScratchBytes(const Product& product);
  // On a GPU the product is enqueued on `stream`, the same for all products of an engine: its order
  // is what lets products and other ops share scratch.
  void Run(Stream& stream, const Product& product, const Tensor& scratch);

  // The products for a GPU that were asked for on kMeta, one of each form, in that order. Their
  // matrices name no memory.
  const std::vector<Product>& planned_products() const;

  // The rest is for a GPU only.

  // The library and GPU for which algorithms can be used.
  GemmAlgorithmLibrary library();
  // Products that are among `algorithms` have these from now on, the others the first one that the
  // library proposes. Fails, and changes nothing, if the algorithms are those of another library or
  // GPU.
  absl::Status UseAlgorithms(const GemmAlgorithms& algorithms);
  // The fastest of the algorithms that the library proposes for a product, which runs some times by
  // each of them: with kAdd it is added each time. Blocks the host.
  GemmAlgorithm FastestAlgorithm(Stream& stream, const Product& product, const Tensor& scratch);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_GEMM_H_
