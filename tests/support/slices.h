// Logical tensors cut into slices, for tests of what goes by logical elements.
#ifndef PANTHERA_TESTS_SUPPORT_SLICES_H_
#define PANTHERA_TESTS_SUPPORT_SLICES_H_

#include <cstdint>
#include <string>

#include "runtime/params/param_spec.h"

namespace panthera::testing {

enum class Cut { kRows, kColumns };

// A place along the tensor axis of a mesh.
struct SlicePlace {
  Cut cut = Cut::kRows;
  int part = 0;
  int parts = 1;
};

inline std::string ToString(const SlicePlace& place) {
  return std::to_string(place.part) + " of " + std::to_string(place.parts) +
         (place.cut == Cut::kRows ? " by rows" : " by columns");
}

// The part of a matrix there; parts differ by one row or column where their number does not divide
// it. One part is the whole, which is no slice.
inline ParamSpec SliceOf(ParamSpec spec, const SlicePlace& place) {
  if (place.parts == 1) {
    return spec;
  }
  const bool by_rows = place.cut == Cut::kRows;
  const int64_t size = spec.shape[by_rows ? 0 : 1];
  const int64_t begin = size * place.part / place.parts;
  const int64_t count = size * (place.part + 1) / place.parts - begin;
  spec.slice = MatrixSlice{
      .whole = spec.shape, .first_row = by_rows ? begin : 0, .first_column = by_rows ? 0 : begin};
  spec.shape = by_rows ? Shape{count, spec.shape[1]} : Shape{spec.shape[0], count};
  return spec;
}

// What ParamSpec::logical_elements should say of element i, by rows and columns.
inline int64_t LogicalElement(const ParamSpec& spec, int64_t i) {
  if (!spec.slice.has_value()) {
    return i;
  }
  const int64_t row = spec.slice->first_row + i / spec.shape[1];
  return row * spec.slice->whole[1] + spec.slice->first_column + i % spec.shape[1];
}

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_SLICES_H_
