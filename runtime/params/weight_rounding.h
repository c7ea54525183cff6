// The arithmetic on bit patterns behind WeightShard, shared by CPU loops and CUDA kernels so that
// both store the same bits.
#ifndef PANTHERA_RUNTIME_PARAMS_WEIGHT_ROUNDING_H_
#define PANTHERA_RUNTIME_PARAMS_WEIGHT_ROUNDING_H_

#include <cstdint>

#include "runtime/base/host_device.h"
#include "runtime/params/weight_shard.h"

namespace panthera {

// Random words come in draws of so many elements.
inline constexpr int64_t kWordsPerDraw = 4;

// Whether a storage keeps fp32 values as they are.
constexpr PANTHERA_HOST_DEVICE bool StoresExactly(WeightStorage storage) {
  return storage == WeightStorage::kFp32 || storage == WeightStorage::kBf16PlusFp32;
}

// The lowest bits of an fp32 pattern that kBf16 and kBf16Plus8 round away.
constexpr PANTHERA_HOST_DEVICE int DroppedBits(WeightStorage storage) {
  return storage == WeightStorage::kBf16 ? 16 : 8;
}

struct SplitWeight {
  uint16_t high;
  uint8_t low;
};

// Splits the upper 24 bits of an fp32 pattern into the nearest bf16 and the signed distance to it.
// Ties go away from zero: the distance +128 would not fit into the byte, -128 does.
PANTHERA_ALWAYS_INLINE SplitWeight SplitTop24(uint32_t top24) {
  return {static_cast<uint16_t>((top24 + 0x80U) >> 8), static_cast<uint8_t>(top24 & 0xFFU)};
}

// The low byte is the distance modulo 256; read as int8 it is the distance.
PANTHERA_ALWAYS_INLINE uint32_t JoinTop24(uint16_t high, uint8_t low) {
  return (uint32_t{high} << 8) + static_cast<uint32_t>(static_cast<int8_t>(low));
}

PANTHERA_ALWAYS_INLINE bool IsNanPattern(uint32_t pattern) {
  return (pattern & 0x7FFFFFFFU) > 0x7F800000U;
}

// Every NaN becomes the quiet NaN without payload, so that no carry runs into its sign.
PANTHERA_ALWAYS_INLINE uint32_t CanonicalNan(uint32_t pattern) {
  return (pattern & 0x80000000U) | 0x7FC00000U;
}

// The pattern with the `dropped` lowest bits rounded away: up with a probability equal to the
// fraction that they are of a unit in the last place kept.
PANTHERA_ALWAYS_INLINE uint32_t RoundStochastically(uint32_t pattern, uint32_t random,
                                                    int dropped) {
  const uint32_t mask = (uint32_t{1} << dropped) - 1;
  const uint32_t rounded = (pattern + (random & mask)) & ~mask;
  return IsNanPattern(pattern) ? CanonicalNan(pattern) : rounded;
}

// The same, to nearest, ties to even.
PANTHERA_ALWAYS_INLINE uint32_t RoundToNearest(uint32_t pattern, int dropped) {
  const uint32_t mask = (uint32_t{1} << dropped) - 1;
  const uint32_t odd = (pattern >> dropped) & 1U;
  const uint32_t rounded = (pattern + (mask >> 1) + odd) & ~mask;
  return IsNanPattern(pattern) ? CanonicalNan(pattern) : rounded;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_WEIGHT_ROUNDING_H_
