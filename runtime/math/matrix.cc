#include "runtime/math/matrix.h"

#include "runtime/base/check.h"

namespace panthera {

Matrix::Matrix(const Tensor& tensor)
    : Matrix(Part(tensor, 0, tensor.size(0), tensor.size(1), tensor.size(1))) {
  CHECK_EQ(tensor.shape().rank(), 2);
}

Matrix Matrix::Part(const Tensor& tensor, int64_t offset, int64_t rows, int64_t columns,
                    int64_t row_stride) {
  return Batch(tensor, offset, 1, rows * row_stride, rows, columns, row_stride);
}

Matrix Matrix::Batch(const Tensor& tensor, int64_t offset, int64_t batch, int64_t batch_stride,
                     int64_t rows, int64_t columns, int64_t row_stride) {
  CHECK_GE(offset, 0);
  CHECK_LE(columns, row_stride);
  if (batch > 0 && rows > 0 && columns > 0) {
    CHECK_LE(offset + (batch - 1) * batch_stride + (rows - 1) * row_stride + columns,
             tensor.elements())
        << "a matrix reaches past its tensor " << tensor.shape();
  }
  Matrix matrix;
  matrix.data = tensor.bytes_data();
  if (matrix.data != nullptr) {
    matrix.data += offset * SizeOf(tensor.dtype());
  }
  matrix.dtype = tensor.dtype();
  matrix.device = tensor.device();
  matrix.batch = batch;
  matrix.rows = rows;
  matrix.columns = columns;
  matrix.row_stride = row_stride;
  matrix.batch_stride = batch_stride;
  return matrix;
}

}  // namespace panthera
