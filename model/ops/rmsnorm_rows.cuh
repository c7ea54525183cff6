// How rows that a block normalises lie in its registers.
#ifndef PANTHERA_MODEL_OPS_RMSNORM_ROWS_CUH_
#define PANTHERA_MODEL_OPS_RMSNORM_ROWS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"

namespace panthera::cuda {

// A row lies in the registers of a block, where it fits: `kPacks` packs of it in each thread, of
// which the first begins at thread * kPack, the next after those of all threads. A block takes so
// many rows together that a thread has kPacksTogether packs of each operand on their way.
inline constexpr int kPacksTogether = 4;
inline constexpr unsigned kMostRowThreads = 512;

// Calls function.operator()<kPacks>(threads), or returns false: the row is too wide.
template <typename Function>
bool DispatchRow(int64_t packs, Function&& function) {
  const auto threads_for = [&](int64_t count) {
    return static_cast<unsigned>(RoundUp(CeilDiv(packs, count), int64_t{kWarpThreads}));
  };
  constexpr int64_t kWantedThreads = 128;
  if (packs <= kWantedThreads) {
    function.template operator()<1>(threads_for(1));
  } else if (packs <= 2 * int64_t{kMostRowThreads}) {
    function.template operator()<2>(threads_for(2));
  } else {
    return false;
  }
  return true;
}

// Threads for a wider row.
inline constexpr unsigned kWideRowThreads = 512;

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_RMSNORM_ROWS_CUH_
