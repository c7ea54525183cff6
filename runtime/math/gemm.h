// The one contract for matrix products. On the CPU they come from oneDNN, on a GPU from cuBLASLt.
#ifndef PANTHERA_RUNTIME_MATH_GEMM_H_
#define PANTHERA_RUNTIME_MATH_GEMM_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/device/device.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

enum class Transpose : uint8_t { kNo, kYes };
enum class Accumulate : uint8_t { kOverwrite, kAdd };

// A matrix inside a tensor's memory, or a batch of equally shaped ones: element (b, r, c) stands
// b * batch_stride + r * row_stride + c elements after the first.
struct Matrix {
  // All of a tensor of two dimensions.
  Matrix(const Tensor& tensor);  // NOLINT(google-explicit-constructor)
  // A part of `tensor` beginning `offset` elements into it, strides in elements.
  static Matrix Part(const Tensor& tensor, int64_t offset, int64_t rows, int64_t columns,
                     int64_t row_stride);
  // `batch` such parts, `batch_stride` elements apart.
  static Matrix Batch(const Tensor& tensor, int64_t offset, int64_t batch, int64_t batch_stride,
                      int64_t rows, int64_t columns, int64_t row_stride);

  std::byte* data = nullptr;  // null on kMeta
  DType dtype = DType::kF32;
  Device device;
  int64_t batch = 1;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t row_stride = 0;
  int64_t batch_stride = 0;

 private:
  Matrix() = default;
};

// c = op(a) op(b), or c += op(a) op(b) with kAdd; op transposes each matrix of a batch if asked to.
//
//   op(a) [m, k], op(b) [k, n], c [m, n], the same batch size everywhere
//   a, b  the same type, fp32 or bf16;  c fp32 or bf16, and not overlapping a or b
//
// Products are summed in fp32 and rounded to c's type once. The same product on the same machine
// with the same number of threads gives the same bits, wherever it lies in memory. Where the
// machine has no bf16 instructions, bf16 operands are widened to fp32 first. On a GPU fp32 operands
// have an fp32 result.
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
  // On a GPU the product is enqueued on `stream`.
  void Run(Stream& stream, const Product& product, const Tensor& scratch);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_GEMM_H_
