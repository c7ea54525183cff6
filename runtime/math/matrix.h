#ifndef PANTHERA_RUNTIME_MATH_MATRIX_H_
#define PANTHERA_RUNTIME_MATH_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "runtime/base/dtype.h"
#include "runtime/device/device.h"
#include "runtime/device/tensor.h"

namespace panthera {

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

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_MATRIX_H_
