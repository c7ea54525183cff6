#ifndef PANTHERA_RUNTIME_DEVICE_PACK_CUH_
#define PANTHERA_RUNTIME_DEVICE_PACK_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "runtime/base/dtype.h"
#include "runtime/device/tensor.h"

namespace panthera {

// kSize neighbouring elements that one instruction loads or stores, as fp32 in registers.
template <typename T, int kSize>
struct Pack {
  float values[kSize];

  // `place` must be aligned to the pack.
  static __device__ Pack Load(const T* place) {
    const Memory memory = *reinterpret_cast<const Memory*>(place);
    Pack pack;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      pack.values[i] = static_cast<float>(memory.elements[i]);
    }
    return pack;
  }
  __device__ void Store(T* place) const {
    Memory memory;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      memory.elements[i] = static_cast<T>(values[i]);
    }
    *reinterpret_cast<Memory*>(place) = memory;
  }

 private:
  struct alignas(sizeof(T) * static_cast<size_t>(kSize)) Memory {
    T elements[kSize];
  };
};

inline constexpr int64_t kPackBytes = 16;

// Whether packs of 16 bytes fit: every tensor begins at a multiple of 16 bytes, and so does every
// row of `width` elements.
template <typename... Tensors>
bool IsPackable(int64_t width, const Tensors&... tensors) {
  return ((width * SizeOf(tensors.dtype()) % kPackBytes == 0 &&
           reinterpret_cast<uintptr_t>(tensors.bytes_data()) % kPackBytes == 0) &&
          ...);
}

// Calls function.operator()<T, kSize>() with the element type that `dtype` names and as many
// elements as a pack holds, or 1 where packs do not fit.
template <typename Function>
void DispatchPack(DType dtype, bool is_packable, Function&& function) {
  DispatchFloat(dtype, [&]<typename T>() {
    if (is_packable) {
      function.template operator()<T, static_cast<int>(kPackBytes / sizeof(T))>();
    } else {
      function.template operator()<T, 1>();
    }
  });
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_PACK_CUH_
