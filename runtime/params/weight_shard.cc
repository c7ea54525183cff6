#include "runtime/params/weight_shard.h"

#include <algorithm>
#include <bit>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"
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
Split SplitTop24(uint32_t top24) {
  return {static_cast<uint16_t>((top24 + 0x80U) >> 8), static_cast<uint8_t>(top24 & 0xFFU)};
}

// The low byte is the distance modulo 256; read as int8 it is the distance.
uint32_t JoinTop24(uint16_t high, uint8_t low) {
  return (uint32_t{high} << 8) + static_cast<uint32_t>(static_cast<int8_t>(low));
}

bool IsNan(uint32_t pattern) { return (pattern & 0x7FFFFFFFU) > 0x7F800000U; }

// Every NaN becomes the quiet NaN without payload, so that no carry runs into its sign.
uint32_t CanonicalNan(uint32_t pattern) { return (pattern & 0x80000000U) | 0x7FC00000U; }

// The pattern with the `dropped` lowest bits rounded away: up with a probability equal to the
// fraction that they are of a unit in the last place kept.
uint32_t RoundStochastically(uint32_t pattern, uint32_t random, int dropped) {
  const uint32_t mask = (uint32_t{1} << dropped) - 1;
  return IsNan(pattern) ? CanonicalNan(pattern) : (pattern + (random & mask)) & ~mask;
}

uint32_t RoundToNearest(uint32_t pattern, int dropped) {
  const uint32_t mask = (uint32_t{1} << dropped) - 1;
  const uint32_t odd = (pattern >> dropped) & 1U;
  return IsNan(pattern) ? CanonicalNan(pattern) : (pattern + (mask >> 1) + odd) & ~mask;
}

// words[i] = the random word of element first + i.
void DrawWords(const RoundingBits& bits, int64_t first, int64_t count, uint32_t* words) {
  for (int64_t i = 0; i < count;) {
    const int64_t element = first + i;
    const Philox draw =
        Philox4x32(bits.key, static_cast<uint64_t>(element / kWordsPerDraw), bits.stream);
    for (int64_t word = element % kWordsPerDraw; word < kWordsPerDraw && i < count; ++word, ++i) {
      words[i] = draw.value[word];
    }
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
    for (int64_t i = 0; i < count; ++i) {
      values[i].bits = static_cast<uint16_t>(patterns[i] >> 16);
    }
    return;
  }
  uint8_t* remainder = shard.remainder->data<uint8_t>() + begin;
  for (int64_t i = 0; i < count; ++i) {
    const Split split = SplitTop24(patterns[i] >> 8);
    values[i].bits = split.high;
    remainder[i] = split.low;
  }
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
    case WeightStorage::kBf16Plus8: {
      const BF16* values = shard.values.data<BF16>() + begin;
      const uint8_t* remainder = shard.remainder->data<uint8_t>() + begin;
      for (int64_t i = 0; i < count; ++i) {
        out[i] = std::bit_cast<float>(JoinTop24(values[i].bits, remainder[i]) << 8);
      }
      return;
    }
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
  uint32_t words[kChunk];
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t chunk = std::min(kChunk, count - done);
    DrawWords(bits, param_begin + done, chunk, words);
    for (int64_t i = 0; i < chunk; ++i) {
      words[i] = RoundStochastically(std::bit_cast<uint32_t>(in[done + i]), words[i], dropped);
    }
    StorePatterns(shard, begin + done, chunk, words);
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
    for (int64_t i = 0; i < chunk; ++i) {
      patterns[i] = RoundToNearest(std::bit_cast<uint32_t>(in[done + i]), dropped);
    }
    StorePatterns(shard, begin + done, chunk, patterns);
  }
}

}  // namespace panthera
