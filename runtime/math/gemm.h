// The one contract for matrix products. On the CPU they come from oneDNN.
#ifndef PANTHERA_RUNTIME_MATH_GEMM_H_
#define PANTHERA_RUNTIME_MATH_GEMM_H_

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

  std::byte* data;
  DType dtype;
  Device device;
  int64_t batch;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  int64_t batch_stride;

 private:
  Matrix() = default;
};

// c = op(a) op(b), or c += op(a) op(b) with kAdd; op transposes each matrix of a batch if asked to.
//
//   op(a) [m, k], op(b) [k, n], c [m, n], the same batch size everywhere
//   a, b  the same type, fp32 or bf16;  c fp32 or bf16, and not overlapping a or b
//
// Products are summed in fp32 and rounded to c's type once. The order of summation depends on
// shapes, types and the machine's instruction set, not on the thread count, the place in memory or
// the values. Scratch comes from the arena. Where the machine has no bf16 instructions, bf16
// operands are widened to fp32 first.
void Gemm(Context& ctx, Transpose transpose_a, const Matrix& a, Transpose transpose_b,
          const Matrix& b, Accumulate accumulate, const Matrix& c);

// The library's handles and its compiled products, one set per rank.
class GemmEngine {
 public:
  explicit GemmEngine(Device target);
  GemmEngine(const GemmEngine&) = delete;
  GemmEngine& operator=(const GemmEngine&) = delete;
  ~GemmEngine();

  class Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_GEMM_H_
