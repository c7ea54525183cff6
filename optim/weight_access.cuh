// Reading and writing a WeightShard in kernels, with the bits of ReadWeights and WriteWeights.
#ifndef PANTHERA_OPTIM_WEIGHT_ACCESS_CUH_
#define PANTHERA_OPTIM_WEIGHT_ACCESS_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"
#include "runtime/device/pack.cuh"
#include "runtime/params/weight_rounding.h"
#include "runtime/params/weight_shard.h"

namespace panthera::cuda {

// The memory of a WeightShard; null what its storage has not.
struct WeightPointers {
  void* values;
  uint8_t* remainder;
  float* master;
};

inline WeightPointers PointersTo(const WeightShard& shard) {
  return {shard.values.bytes_data(),
          shard.remainder.has_value() ? shard.remainder->data<uint8_t>() : nullptr,
          shard.master.has_value() ? shard.master->data<float>() : nullptr};
}

// Calls function.operator()<kStorage>() with the storage as a constant.
template <typename Function>
void DispatchStorage(WeightStorage storage, Function&& function) {
  switch (storage) {
    case WeightStorage::kFp32:
      return function.template operator()<WeightStorage::kFp32>();
    case WeightStorage::kBf16Plus8:
      return function.template operator()<WeightStorage::kBf16Plus8>();
    case WeightStorage::kBf16:
      return function.template operator()<WeightStorage::kBf16>();
    case WeightStorage::kBf16PlusFp32:
      return function.template operator()<WeightStorage::kBf16PlusFp32>();
  }
  CHECK(false) << static_cast<int>(storage);
}

// kPack neighbouring elements as one load or store; the first must be a multiple of kPack.
template <typename T, int kPack>
struct alignas(sizeof(T) * static_cast<size_t>(kPack)) [[gnu::may_alias]] Elements {
  T values[kPack];

  static __device__ Elements Load(const void* memory, int64_t first) {
    return *reinterpret_cast<const Elements*>(static_cast<const T*>(memory) + first);
  }
  __device__ void Store(void* memory, int64_t first) const {
    *reinterpret_cast<Elements*>(static_cast<T*>(memory) + first) = *this;
  }
};

// theta = the stored values of elements [first, first + kPack) of the shard.
template <WeightStorage kStorage, int kPack>
__device__ void ReadWeightPack(const WeightPointers& weights, int64_t first,
                               float (&theta)[kPack]) {
  if constexpr (StoresExactly(kStorage)) {
    const void* exact =
        kStorage == WeightStorage::kFp32 ? weights.values : static_cast<void*>(weights.master);
    const auto pack = Elements<float, kPack>::Load(exact, first);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      theta[i] = pack.values[i];
    }
  } else {
    const auto high = Elements<uint16_t, kPack>::Load(weights.values, first);
    Elements<uint8_t, kPack> low{};
    if constexpr (kStorage == WeightStorage::kBf16Plus8) {
      low = Elements<uint8_t, kPack>::Load(weights.remainder, first);
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      // Without a remainder the low byte is 0, and the distance with it.
      theta[i] = __uint_as_float(JoinTop24(high.values[i], low.values[i]) << 8);
    }
  }
}

// The random words of elements [logical_first, logical_first + kPack) of the logical tensor. A pack
// is some draws, or an element of one.
template <int kPack>
__device__ void DrawWords(const RoundingBits& bits, int64_t logical_first,
                          uint32_t (&words)[kPack]) {
  constexpr int kDraw = static_cast<int>(kWordsPerDraw);
  static_assert(kPack == 1 || kPack % kDraw == 0);
  const auto first_draw = static_cast<uint64_t>(logical_first) / kDraw;
  if constexpr (kPack == 1) {
    words[0] = 0;
    const Philox drawn = Philox4x32(bits.key, first_draw, bits.stream);
    const auto word = static_cast<int>(static_cast<uint64_t>(logical_first) % kDraw);
    // Without an index that would put the draw into memory.
#pragma unroll
    for (int i = 0; i < kDraw; ++i) {
      words[0] = i == word ? drawn.value[i] : words[0];
    }
  } else {
#pragma unroll
    for (int draw = 0; draw < kPack / kDraw; ++draw) {
      const Philox drawn = Philox4x32(bits.key, first_draw + draw, bits.stream);
#pragma unroll
      for (int i = 0; i < kDraw; ++i) {
        words[draw * kDraw + i] = drawn.value[i];
      }
    }
  }
}

template <int kPack>
__device__ bool HasNan(const float (&values)[kPack]) {
  bool found = false;
#pragma unroll
  for (const float value : values) {
    found = found || value != value;
  }
  return found;
}

// Stores packs of kBf16Plus8 that hold no NaN as WriteWeightPack does, in half the instructions.
// With u = pattern + (random & 255) + 2^15, modulo 2^32, the upper half of u is SplitTop24's high,
// and byte 1 of u, to which 128 was added, is its low.
template <int kPack>
__device__ void WriteSplitPack(const WeightPointers& weights, int64_t first,
                               const float (&theta)[kPack], const uint32_t (&words)[kPack]) {
  constexpr uint32_t kHalf = 0x8000;
  Elements<uint32_t, kPack / 2> high;
  Elements<uint32_t, kPack / 4> low;
#pragma unroll
  for (int i = 0; i < kPack; i += 4) {
    uint32_t u[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      u[j] = __float_as_uint(theta[i + j]) + (words[i + j] & 0xFFU) + kHalf;
    }
    high.values[i / 2] = __byte_perm(u[0], u[1], 0x7632);
    high.values[i / 2 + 1] = __byte_perm(u[2], u[3], 0x7632);
    const uint32_t first_two = __byte_perm(u[0], u[1], 0x0051);
    const uint32_t last_two = __byte_perm(u[2], u[3], 0x0051);
    low.values[i / 4] = __byte_perm(first_two, last_two, 0x5410) ^ 0x80808080U;
  }
  high.Store(static_cast<uint16_t*>(weights.values) + first, 0);
  low.Store(weights.remainder + first, 0);
}

// Stores `theta` there; the random bits are those of elements [logical_first, logical_first +
// kPack) of the logical tensor. Of `bits`, `logical` is not used.
template <WeightStorage kStorage, int kPack>
__device__ void WriteWeightPack(const WeightPointers& weights, int64_t first,
                                const float (&theta)[kPack], int64_t logical_first,
                                const RoundingBits& bits) {
  if constexpr (StoresExactly(kStorage)) {
    Elements<float, kPack> exact;
    Elements<BF16, kPack> rounded;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      exact.values[i] = theta[i];
      rounded.values[i] = BF16(theta[i]);
    }
    if constexpr (kStorage == WeightStorage::kFp32) {
      exact.Store(weights.values, first);
    } else {
      exact.Store(weights.master, first);
      rounded.Store(weights.values, first);
    }
  } else {
    uint32_t words[kPack];
    DrawWords<kPack>(bits, logical_first, words);
    if constexpr (kStorage == WeightStorage::kBf16Plus8 && kPack % 4 == 0) {
      if (!HasNan(theta)) {
        WriteSplitPack(weights, first, theta, words);
        return;
      }
    }
    Elements<uint16_t, kPack> high;
    Elements<uint8_t, kPack> low;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const uint32_t pattern =
          RoundStochastically(__float_as_uint(theta[i]), words[i], DroppedBits(kStorage));
      if constexpr (kStorage == WeightStorage::kBf16) {
        high.values[i] = static_cast<uint16_t>(pattern >> 16);
      } else {
        const SplitWeight split = SplitTop24(pattern >> 8);
        high.values[i] = split.high;
        low.values[i] = split.low;
      }
    }
    high.Store(weights.values, first);
    if constexpr (kStorage == WeightStorage::kBf16Plus8) {
      low.Store(weights.remainder, first);
    }
  }
}

}  // namespace panthera::cuda

#endif  // PANTHERA_OPTIM_WEIGHT_ACCESS_CUH_
