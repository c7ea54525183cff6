// How ops share rows among threads.
#ifndef PANTHERA_MODEL_OPS_ROWS_H_
#define PANTHERA_MODEL_OPS_ROWS_H_

#include <algorithm>
#include <cstdint>

namespace panthera {

// The least number of rows of `width` elements for which another thread pays.
constexpr int64_t RowGrain(int64_t width) {
  constexpr int64_t kElements = 16384;
  return std::max<int64_t>(1, kElements / std::max<int64_t>(1, width));
}

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_ROWS_H_
