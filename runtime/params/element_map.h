#ifndef PANTHERA_RUNTIME_PARAMS_ELEMENT_MAP_H_
#define PANTHERA_RUNTIME_PARAMS_ELEMENT_MAP_H_

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

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_ELEMENT_MAP_H_
