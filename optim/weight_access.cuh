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
struct alignas(sizeof(T) * static_cast<size_t>(kPack)) Elements {
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

// Stores `theta` there; the random bits are those of elements [param_first, param_first + kPack) of
// the logical tensor. A pack is one draw, or an element of one.
template <WeightStorage kStorage, int kPack>
__device__ void WriteWeightPack(const WeightPointers& weights, int64_t first,
                                const float (&theta)[kPack], int64_t param_first,
                                const RoundingBits& bits) {
  static_assert(kPack == 1 || kPack == kWordsPerDraw);
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
    const Philox draw =
        Philox4x32(bits.key, static_cast<uint64_t>(param_first / kWordsPerDraw), bits.stream);
    Elements<uint16_t, kPack> high;
    Elements<uint8_t, kPack> low;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const int word = kPack == 1 ? static_cast<int>(param_first % kWordsPerDraw) : i;
      const uint32_t pattern =
          RoundStochastically(__float_as_uint(theta[i]), draw.value[word], DroppedBits(kStorage));
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
