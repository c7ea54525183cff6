#include "runtime/params/param_spec.h"

#include "runtime/base/check.h"

namespace panthera {

ElementMap ParamSpec::logical_elements() const {
  if (!slice.has_value()) {
    return {.begin = 0, .run = shape.elements(), .stride = 0};
  }
  CHECK_EQ(shape.rank(), 2) << name;
  CHECK_EQ(slice->whole.rank(), 2) << name;
  CHECK_LE(slice->first_row + shape[0], slice->whole[0]) << name;
  CHECK_LE(slice->first_column + shape[1], slice->whole[1]) << name;
  const int64_t columns = slice->whole[1];
  const int64_t begin = slice->first_row * columns + slice->first_column;
  if (shape[1] == columns) {
    return {.begin = begin, .run = shape.elements(), .stride = 0};
  }
  return {.begin = begin, .run = shape[1], .stride = columns};
}

}  // namespace panthera
