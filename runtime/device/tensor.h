#ifndef PANTHERA_RUNTIME_DEVICE_TENSOR_H_
#define PANTHERA_RUNTIME_DEVICE_TENSOR_H_

#include <cstddef>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/dtype.h"
#include "runtime/base/shape.h"
#include "runtime/device/device.h"

namespace panthera {

// A typed, contiguous, row-major view of memory that somebody else owns. Cheap to copy. Constness
// is shallow, like std::span's: ops take inputs as `const Tensor&` and outputs as `Tensor` by
// value.
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, const Shape& shape, DType dtype, Device device)
      : data_(static_cast<std::byte*>(data)), shape_(shape), dtype_(dtype), device_(device) {}

  const Shape& shape() const { return shape_; }
  int64_t size(int dimension) const { return shape_[dimension]; }
  int64_t elements() const { return shape_.elements(); }
  int64_t bytes() const { return elements() * SizeOf(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  // The first element. T must be the dtype's type. Null on kMeta.
  template <typename T>
  T* data() const {
    CHECK_EQ(dtype_, DTypeOf<T>::value);
    return reinterpret_cast<T*>(data_);
  }
  std::byte* bytes_data() const { return data_; }

  // Rows [begin, end) of dimension 0.
  Tensor Slice(int64_t begin, int64_t end) const;
  // The same elements under another shape with as many elements.
  Tensor Reshape(const Shape& shape) const;

 private:
  std::byte* data_ = nullptr;
  Shape shape_{0};
  DType dtype_ = DType::kF32;
  Device device_;
};

}  // namespace panthera

// Checks a tensor's shape: CHECK_SHAPE(x, rows, width).
#define CHECK_SHAPE(tensor, ...) CHECK_EQ((tensor).shape(), (::panthera::Shape{__VA_ARGS__}))

#endif  // PANTHERA_RUNTIME_DEVICE_TENSOR_H_
