#ifndef PANTHERA_RUNTIME_DEVICE_PACK_CUH_
#define PANTHERA_RUNTIME_DEVICE_PACK_CUH_

#include <cuda_runtime.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "runtime/base/dtype.h"
#include "runtime/device/mma.cuh"
#include "runtime/device/tensor.h"

namespace panthera {

// kSize neighbouring elements that one instruction loads or stores, as fp32 in registers.
template <typename T, int kSize>
struct Pack {
  static constexpr bool kHoldsPairs = std::is_same_v<T, BF16> && kSize % 2 == 0;
  using Word = std::conditional_t<sizeof(T) * kSize % 4 == 0, uint32_t, uint16_t>;
  static constexpr int kWords = static_cast<int>(sizeof(T) * kSize / sizeof(Word));

  // As they lie in memory: in words, so that two of bf16 wait in one register.
  struct alignas(sizeof(T) * static_cast<size_t>(kSize)) [[gnu::may_alias]] Memory {
    Word words[kWords];
  };

  float values[kSize];

  // `place` must be aligned to the pack.
  static __device__ Memory Fetch(const T* place) { return *reinterpret_cast<const Memory*>(place); }
  static __device__ void Put(const Memory& memory, T* place) {
#if defined(__CUDACC__)
    // An assignment may become stores of single words.
    if constexpr (sizeof(Memory) == sizeof(uint4)) {
      __stwb(reinterpret_cast<uint4*>(place), std::bit_cast<uint4>(memory));
      return;
    }
#endif
    *reinterpret_cast<Memory*>(place) = memory;
  }

  static __device__ Pack Of(const Memory& memory) {
    Pack pack;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (kHoldsPairs) {
        pack.values[2 * i] = FirstOfBf16(memory.words[i]);
        pack.values[2 * i + 1] = SecondOfBf16(memory.words[i]);
      } else {
        pack.values[i] = static_cast<float>(std::bit_cast<T>(memory.words[i]));
      }
    }
    return pack;
  }
  __device__ Memory Rounded() const {
    Memory memory;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (kHoldsPairs) {
        memory.words[i] = PackBf16(values[2 * i], values[2 * i + 1]);
      } else {
        memory.words[i] = std::bit_cast<Word>(static_cast<T>(values[i]));
      }
    }
    return memory;
  }

  static __device__ Pack Load(const T* place) { return Of(Fetch(place)); }
  __device__ void Store(T* place) const { Put(Rounded(), place); }
};

// kPack neighbouring floats beside a pack of bf16, which begin at a multiple of 16 bytes unless
// kPack is 1.
template <int kPack>
__device__ inline void LoadFp32(const float* place, float (&out)[kPack]) {
  constexpr int kTogether = kPack % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int i = 0; i < kPack; i += kTogether) {
    const auto part = Pack<float, kTogether>::Load(place + i);
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      out[i + j] = part.values[j];
    }
  }
}
template <int kPack>
__device__ inline void StoreFp32(const float (&in)[kPack], float* place) {
  constexpr int kTogether = kPack % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int i = 0; i < kPack; i += kTogether) {
    Pack<float, kTogether> part;
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      part.values[j] = in[i + j];
    }
    part.Store(place + i);
  }
}

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
