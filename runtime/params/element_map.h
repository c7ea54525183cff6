#ifndef PANTHERA_RUNTIME_PARAMS_ELEMENT_MAP_H_
#define PANTHERA_RUNTIME_PARAMS_ELEMENT_MAP_H_

#include <algorithm>
#include <cstdint>

#include "runtime/base/host_device.h"

namespace panthera {

// Where the elements of a slice of a row-major tensor lie in the whole: element i of the slice is
// element begin + i / run * stride + i % run of the whole. A slice of rows is one run, a slice of
// columns has one run for each row.
struct ElementMap {
  int64_t begin = 0;
  int64_t run = 0;     // elements that are neighbours in both
  int64_t stride = 0;  // from the beginning of a run to that of the next; 0: there is but one

  bool is_contiguous() const { return stride == 0; }
  PANTHERA_HOST_DEVICE int64_t operator()(int64_t i) const {
    return stride == 0 ? begin + i : begin + i / run * stride + i % run;
  }
};

// Calls body(offset, begin, count) for the parts of the slice's elements [first, first + elements)
// that are neighbours in the whole, in order: elements [first + offset, first + offset + count) of
// the slice are [begin, begin + count) of the whole.
template <typename Body>
void ForEachNeighbours(const ElementMap& map, int64_t first, int64_t elements, const Body& body) {
  if (map.is_contiguous()) {
    body(int64_t{0}, map.begin + first, elements);
    return;
  }
  for (int64_t offset = 0; offset < elements;) {
    const int64_t left_of_run = map.run - (first + offset) % map.run;
    const int64_t count = std::min(left_of_run, elements - offset);
    body(offset, map(first + offset), count);
    offset += count;
  }
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_ELEMENT_MAP_H_
