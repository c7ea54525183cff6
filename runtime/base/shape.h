#ifndef PANTHERA_RUNTIME_BASE_SHAPE_H_
#define PANTHERA_RUNTIME_BASE_SHAPE_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>

#include "runtime/base/check.h"

namespace panthera {

// The sizes of a row-major tensor with up to four dimensions. The empty shape is a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);

  int rank() const { return rank_; }
  int64_t operator[](int dimension) const {
    CHECK_GE(dimension, 0);
    CHECK_LT(dimension, rank_);
    return sizes_[static_cast<size_t>(dimension)];
  }
  // The number of elements: the product of all sizes.
  int64_t elements() const;
  // The same shape with dimension 0 replaced.
  Shape WithLeading(int64_t size) const;

  friend bool operator==(const Shape& a, const Shape& b) = default;

 private:
  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

// "[2, 3]".
std::string ToString(const Shape& shape);
std::ostream& operator<<(std::ostream& out, const Shape& shape);

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t a, int64_t multiple) { return CeilDiv(a, multiple) * multiple; }

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_SHAPE_H_
