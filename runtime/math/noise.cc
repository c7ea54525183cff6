#include "runtime/math/noise.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace panthera {

void FillWithNoise(Stream& stream, Tensor x) {
  constexpr int64_t kChunk = int64_t{1} << 18;
  const Tensor flat = x.Reshape({x.elements()});
  uint32_t state = 1;
  DispatchFloat(x.dtype(), [&]<typename T>() {
    std::vector<T> chunk(static_cast<size_t>(std::min(kChunk, x.elements())));
    for (int64_t begin = 0; begin < x.elements(); begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, x.elements());
      for (T& value : chunk) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<T>(static_cast<float>(state >> 8) * 0x1p-24F - 0.5F);
      }
      Copy(stream, Tensor(chunk.data(), {end - begin}, x.dtype(), Device{}),
           flat.Slice(begin, end));
      stream.Synchronize();  // the chunk is about to be overwritten
    }
  });
}

}  // namespace panthera
