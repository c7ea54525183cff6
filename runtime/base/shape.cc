#include "runtime/base/shape.h"

#include <limits>

namespace panthera {

Shape::Shape(std::initializer_list<int64_t> sizes) {
  CHECK_LE(sizes.size(), static_cast<size_t>(kMaxRank));
  for (const int64_t size : sizes) {
    CHECK_GE(size, 0);
    sizes_[static_cast<size_t>(rank_++)] = size;
  }
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int i = 0; i < rank_; ++i) {
    const int64_t size = sizes_[static_cast<size_t>(i)];
    CHECK(size == 0 || product <= std::numeric_limits<int64_t>::max() / size)
        << "the number of elements of " << *this << " does not fit 64 bits";
    product *= size;
  }
  return product;
}

Shape Shape::WithLeading(int64_t size) const {
  CHECK_GE(rank_, 1);
  Shape shape = *this;
  shape.sizes_[0] = size;
  return shape;
}

std::string ToString(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << ToString(shape); }

}  // namespace panthera
