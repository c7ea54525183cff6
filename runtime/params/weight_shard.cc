#include "runtime/params/weight_shard.h"

#include <algorithm>
#include <array>
#include <bit>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"
#include "runtime/base/simd.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

// Random words are drawn for this many elements at a time.
constexpr int64_t kChunk = 1024;
constexpr int64_t kWordsPerDraw = 4;

struct Split {
  uint16_t high;
  uint8_t low;
};

// Splits the upper 24 bits of an fp32 pattern into the nearest bf16 and the signed distance to it.
// Ties go away from zero: the distance +128 would not fit into the byte, -128 does.
PANTHERA_INLINE inline Split SplitTop24(uint32_t top24) {
  return {static_cast<uint16_t>((top24 + 0x80U) >> 8), static_cast<uint8_t>(top24 & 0xFFU)};
}

// The low byte is the distance modulo 256; read as int8 it is the distance.
PANTHERA_INLINE inline uint32_t JoinTop24(uint16_t high, uint8_t low) {
  return (uint32_t{high} << 8) + static_cast<uint32_t>(static_cast<int8_t>(low));
}

PANTHERA_INLINE inline bool IsNan(uint32_t pattern) {
  return (pattern & 0x7FFFFFFFU) > 0x7F800000U;
}

// Every NaN becomes the quiet NaN without payload, so that no carry runs into its sign.
PANTHERA_INLINE inline uint32_t CanonicalNan(uint32_t pattern) {
  return (pattern & 0x80000000U) | 0x7FC00000U;
}

// The pattern with the `dropped` lowest bits rounded away: up with a probability equal to the
// fraction that they are of a unit in the last place kept.
PANTHERA_INLINE inline uint32_t RoundStochastically(uint32_t pattern, uint32_t random,
                                                    int dropped) {
  const uint32_t mask = (uint32_t{1} << dropped) - 1;
  const uint32_t rounded = (pattern + (random & mask)) & ~mask;
  return IsNan(pattern) ? CanonicalNan(pattern) : rounded;
}

PANTHERA_INLINE inline uint32_t RoundToNearest(uint32_t pattern, int dropped) {
  const uint32_t mask = (uint32_t{1} << dropped) - 1;
  const uint32_t odd = (pattern >> dropped) & 1U;
  const uint32_t rounded = (pattern + (mask >> 1) + odd) & ~mask;
  return IsNan(pattern) ? CanonicalNan(pattern) : rounded;
}

// words = the four words of each of the draws [first, first + draws).
PANTHERA_SIMD void DrawWholeWords(uint64_t key, uint64_t first, uint64_t stream, int64_t draws,
                                  uint32_t* words) {
  for (int64_t i = 0; i < draws; ++i) {
    const Philox draw = Philox4x32(key, first + static_cast<uint64_t>(i), stream);
    for (int64_t word = 0; word < kWordsPerDraw; ++word) {
      words[i * kWordsPerDraw + word] = draw.value[word];
    }
  }
}

// The random words of the elements [first, first + count), count up to kChunk, which begin
// somewhere in `words`: an element need not be the first of its draw.
const uint32_t* DrawWords(const RoundingBits& bits, int64_t first, int64_t count,
                          std::array<uint32_t, kChunk + kWordsPerDraw>& words) {
  const int64_t skipped = first % kWordsPerDraw;
  DrawWholeWords(bits.key, static_cast<uint64_t>(first / kWordsPerDraw), bits.stream,
                 CeilDiv(skipped + count, kWordsPerDraw), words.data());
  return words.data() + skipped;
}

PANTHERA_SIMD void RoundRowStochastically(const float* in, const uint32_t* random, int dropped,
                                          int64_t count, uint32_t* patterns) {
  for (int64_t i = 0; i < count; ++i) {
    patterns[i] = RoundStochastically(std::bit_cast<uint32_t>(in[i]), random[i], dropped);
  }
}

PANTHERA_SIMD void RoundRowToNearest(const float* in, int dropped, int64_t count,
                                     uint32_t* patterns) {
  for (int64_t i = 0; i < count; ++i) {
    patterns[i] = RoundToNearest(std::bit_cast<uint32_t>(in[i]), dropped);
  }
}

PANTHERA_SIMD void StoreHighHalves(const uint32_t* patterns, int64_t count, BF16* values) {
  for (int64_t i = 0; i < count; ++i) {
    values[i].bits = static_cast<uint16_t>(patterns[i] >> 16);
  }
}

PANTHERA_SIMD void StoreSplit(const uint32_t* patterns, int64_t count, BF16* values,
                              uint8_t* remainder) {
  for (int64_t i = 0; i < count; ++i) {
    const Split split = SplitTop24(patterns[i] >> 8);
    values[i].bits = split.high;
    remainder[i] = split.low;
  }
}

PANTHERA_SIMD void ReadSplit(const BF16* values, const uint8_t* remainder, int64_t count,
                             float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = std::bit_cast<float>(JoinTop24(values[i].bits, remainder[i]) << 8);
  }
}

void CheckCpuRange(const WeightShard& shard, int64_t begin, int64_t count) {
  CHECK(shard.values.device().is_cpu()) << shard.values.device();
  CHECK_GE(begin, 0);
  CHECK_GE(count, 0);
  CHECK_LE(begin + count, shard.values.elements());
}

// Stores rounded fp32 patterns as element begin + i: their lower 16 bits (kBf16) or 8 bits
// (kBf16Plus8) are zero.
void StorePatterns(const WeightShard& shard, int64_t begin, int64_t count,
                   const uint32_t* patterns) {
  BF16* values = shard.values.data<BF16>() + begin;
  if (shard.storage == WeightStorage::kBf16) {
    StoreHighHalves(patterns, count, values);
    return;
  }
  StoreSplit(patterns, count, values, shard.remainder->data<uint8_t>() + begin);
}

// kFp32 and kBf16PlusFp32, which need no rounding of what is kept.
void StoreExactly(const WeightShard& shard, int64_t begin, int64_t count, const float* in) {
  if (shard.storage == WeightStorage::kFp32) {
    StoreRow(in, count, shard.values.data<float>() + begin);
    return;
  }
  StoreRow(in, count, shard.master->data<float>() + begin);
  StoreRow(in, count, shard.values.data<BF16>() + begin);
}

bool StoresExactly(WeightStorage storage) {
  return storage == WeightStorage::kFp32 || storage == WeightStorage::kBf16PlusFp32;
}

int DroppedBits(WeightStorage storage) { return storage == WeightStorage::kBf16 ? 16 : 8; }

}  // namespace

void ReadWeights(const WeightShard& shard, int64_t begin, int64_t count, float* out) {
  CheckCpuRange(shard, begin, count);
  switch (shard.storage) {
    case WeightStorage::kFp32:
    case WeightStorage::kBf16:
      LoadRow(shard.values, begin, count, out);
      return;
    case WeightStorage::kBf16PlusFp32:
      LoadRow(*shard.master, begin, count, out);
      return;
    case WeightStorage::kBf16Plus8:
      ReadSplit(shard.values.data<BF16>() + begin, shard.remainder->data<uint8_t>() + begin, count,
                out);
      return;
  }
}

void WriteWeights(const WeightShard& shard, int64_t begin, int64_t count, const float* in,
                  int64_t param_begin, const RoundingBits& bits) {
  CheckCpuRange(shard, begin, count);
  if (StoresExactly(shard.storage)) {
    StoreExactly(shard, begin, count, in);
    return;
  }
  const int dropped = DroppedBits(shard.storage);
  std::array<uint32_t, kChunk + kWordsPerDraw> words;
  std::array<uint32_t, kChunk> patterns;
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t chunk = std::min(kChunk, count - done);
    const uint32_t* random = DrawWords(bits, param_begin + done, chunk, words);
    RoundRowStochastically(in + done, random, dropped, chunk, patterns.data());
    StorePatterns(shard, begin + done, chunk, patterns.data());
  }
}

void WriteWeightsToNearest(const WeightShard& shard, int64_t begin, int64_t count,
                           const float* in) {
  CheckCpuRange(shard, begin, count);
  if (StoresExactly(shard.storage)) {
    StoreExactly(shard, begin, count, in);
    return;
  }
  const int dropped = DroppedBits(shard.storage);
  uint32_t patterns[kChunk];
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t chunk = std::min(kChunk, count - done);
    RoundRowToNearest(in + done, dropped, chunk, patterns);
    StorePatterns(shard, begin + done, chunk, patterns);
  }
}

}  // namespace panthera
