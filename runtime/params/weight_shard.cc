#include "runtime/params/weight_shard.h"

#include <algorithm>
#include <array>
#include <bit>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"
#include "runtime/base/simd.h"
#include "runtime/math/rows.h"
#include "runtime/params/weight_rounding.h"

namespace panthera {
namespace {

// Random words are drawn for this many elements at a time.
constexpr int64_t kChunk = 1024;

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

// The random words of the logical elements [first, first + count), count up to kChunk, which begin
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
    const SplitWeight split = SplitTop24(patterns[i] >> 8);
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

// Element begin + i of the shard, kBf16 or kBf16Plus8, is logical element first + i.
void StoreStochastically(const WeightShard& shard, int64_t begin, int64_t count, const float* in,
                         int64_t first, const RoundingBits& bits) {
  const int dropped = DroppedBits(shard.storage);
  std::array<uint32_t, kChunk + kWordsPerDraw> words;
  std::array<uint32_t, kChunk> patterns;
  for (int64_t done = 0; done < count; done += kChunk) {
    const int64_t chunk = std::min(kChunk, count - done);
    const uint32_t* random = DrawWords(bits, first + done, chunk, words);
    RoundRowStochastically(in + done, random, dropped, chunk, patterns.data());
    StorePatterns(shard, begin + done, chunk, patterns.data());
  }
}

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
  ForEachNeighbours(
      bits.logical, param_begin, count, [&](int64_t offset, int64_t element, int64_t neighbours) {
        StoreStochastically(shard, begin + offset, neighbours, in + offset, element, bits);
      });
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
