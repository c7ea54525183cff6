#include "runtime/device/tensor.h"

namespace panthera {

Tensor Tensor::Slice(int64_t begin, int64_t end) const {
  CHECK_GE(shape_.rank(), 1);
  CHECK_GE(begin, 0);
  CHECK_LE(begin, end);
  CHECK_LE(end, shape_[0]);
  const int64_t row_bytes = shape_.WithLeading(1).elements() * SizeOf(dtype_);
  std::byte* first = data_ == nullptr ? nullptr : data_ + begin * row_bytes;
  return {first, shape_.WithLeading(end - begin), dtype_, device_};
}

Tensor Tensor::Reshape(const Shape& shape) const {
  CHECK_EQ(shape.elements(), shape_.elements()) << shape_ << " to " << shape;
  return {data_, shape, dtype_, device_};
}

}  // namespace panthera
