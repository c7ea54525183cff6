#include "runtime/params/weight_shard.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/base/philox.h"
#include "runtime/device/buffer.h"

namespace panthera {
namespace {

// A shard with memory of its own.
class ShardMemory {
 public:
  ShardMemory(WeightStorage storage, int64_t count) {
    const DType dtype = ValueDType(storage);
    values_ = Allocate(count * SizeOf(dtype));
    remainder_ = Allocate(count);
    master_ = Allocate(count * SizeOf(DType::kF32));
    shard.storage = storage;
    shard.values = values_.View({count}, dtype);
    if (storage == WeightStorage::kBf16Plus8) {
      shard.remainder = remainder_.View({count}, DType::kU8);
    }
    if (storage == WeightStorage::kBf16PlusFp32) {
      shard.master = master_.View({count}, DType::kF32);
    }
  }

  std::vector<float> Read() const {
    std::vector<float> out(static_cast<size_t>(shard.values.elements()));
    ReadWeights(shard, 0, shard.values.elements(), out.data());
    return out;
  }

  WeightShard shard;

 private:
  Buffer Allocate(int64_t bytes) {
    return Buffer(Device{}, ledger_, MemoryCategory::kWeights, "test", bytes);
  }

  MemoryLedger ledger_;
  Buffer values_;
  Buffer remainder_;
  Buffer master_;
};

constexpr WeightStorage kRounding[] = {WeightStorage::kBf16, WeightStorage::kBf16Plus8};
constexpr WeightStorage kAll[] = {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                  WeightStorage::kBf16, WeightStorage::kBf16PlusFp32};

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }
float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }

// The bits that a storage drops from an fp32.
int DroppedBits(WeightStorage storage) { return storage == WeightStorage::kBf16 ? 16 : 8; }

// Every fp32 whose lowest 8 bits are zero, all 2^24 of them, survives bf16+8 bit for bit, and what
// the layers read is a nearest bf16.
TEST(WeightShardTest, Bf16Plus8KeepsEvery24BitValue) {
  constexpr int64_t kCount = 1 << 16;
  ShardMemory memory(WeightStorage::kBf16Plus8, kCount);
  std::vector<float> in(kCount);
  for (uint32_t high = 0; high < 256; ++high) {
    for (uint32_t low = 0; low < kCount; ++low) {
      in[low] = FromBits((high << 24) + (low << 8));
    }
    WriteWeightsToNearest(memory.shard, 0, kCount, in.data());
    const std::vector<float> out = memory.Read();
    const BF16* values = memory.shard.values.data<BF16>();
    for (size_t i = 0; i < kCount; ++i) {
      if (std::isnan(in[i])) {
        ASSERT_TRUE(std::isnan(out[i])) << std::hex << Bits(in[i]);
        ASSERT_TRUE(std::isnan(static_cast<float>(values[i]))) << std::hex << Bits(in[i]);
        continue;
      }
      ASSERT_EQ(Bits(out[i]), Bits(in[i])) << std::hex << Bits(in[i]);
      if (values[i].bits == BF16(in[i]).bits) {
        continue;
      }
      // Other than BF16's rounding only where two neighbours are equally near.
      const double nearest = static_cast<double>(static_cast<float>(BF16(in[i])));
      const double chosen = static_cast<double>(static_cast<float>(values[i]));
      const double exact = static_cast<double>(in[i]);
      if (std::isfinite(chosen)) {
        ASSERT_EQ(std::fabs(chosen - exact), std::fabs(nearest - exact)) << std::hex << Bits(in[i]);
      }
    }
  }
}

TEST(WeightShardTest, LargestValuesKeepTheirValueAlthoughTheLayersReadInfinity) {
  ShardMemory memory(WeightStorage::kBf16Plus8, 2);
  const float in[] = {FromBits(0x7F7FFF00U), FromBits(0xFF7FFF00U)};
  WriteWeightsToNearest(memory.shard, 0, 2, in);
  EXPECT_EQ(memory.Read(), std::vector<float>(in, in + 2));
  EXPECT_TRUE(std::isinf(static_cast<float>(memory.shard.values.data<BF16>()[0])));
}

TEST(WeightShardTest, NansStayNansWhateverTheirPayload) {
  // The last one is all ones: a carry would turn it into zero.
  const float in[] = {FromBits(0x7F800001U), FromBits(0xFF800001U), FromBits(0x7FFFFFFFU),
                      FromBits(0xFFFFFFFFU)};
  for (const WeightStorage storage : kAll) {
    ShardMemory memory(storage, 4);
    WriteWeights(memory.shard, 0, 4, in, 0, {7, 7});
    for (const float value : memory.Read()) {
      EXPECT_TRUE(std::isnan(value)) << EnumName(storage);
    }
    WriteWeightsToNearest(memory.shard, 0, 4, in);
    for (const float value : memory.Read()) {
      EXPECT_TRUE(std::isnan(value)) << EnumName(storage);
    }
  }
}

TEST(WeightShardTest, ExactStoragesKeepEveryBitAndShowLayersTheNearestBf16) {
  std::vector<float> in;
  for (uint32_t bits = 0; bits < 0xFF000000U - 70001; bits += 70001) {
    if (!std::isnan(FromBits(bits))) {
      in.push_back(FromBits(bits));
    }
  }
  const auto count = static_cast<int64_t>(in.size());
  for (const WeightStorage storage : {WeightStorage::kFp32, WeightStorage::kBf16PlusFp32}) {
    ShardMemory memory(storage, count);
    WriteWeights(memory.shard, 0, count, in.data(), 5, {1, 2});
    EXPECT_EQ(memory.Read(), in);
    for (size_t i = 0; i < in.size() && storage == WeightStorage::kBf16PlusFp32; ++i) {
      ASSERT_EQ(memory.shard.values.data<BF16>()[i], BF16(in[i]));
    }
  }
}

TEST(WeightShardTest, ValuesThatFitAreStoredWithoutChange) {
  for (const WeightStorage storage : kRounding) {
    std::vector<float> in;
    for (uint32_t i = 0; i < 5000; ++i) {
      const uint32_t pattern = (i * 0x9E3779B9U) & ~((1U << DroppedBits(storage)) - 1);
      if (std::isfinite(FromBits(pattern))) {
        in.push_back(FromBits(pattern));
      }
    }
    const auto count = static_cast<int64_t>(in.size());
    ShardMemory memory(storage, count);
    for (uint64_t stream = 0; stream < 8; ++stream) {
      WriteWeights(memory.shard, 0, count, in.data(), 0, {stream, stream});
      ASSERT_EQ(memory.Read(), in) << EnumName(storage);
    }
  }
}

// A value that lies f of the way from one representable number to the next goes up with probability
// f: the share of N draws has the standard deviation sqrt(f (1 - f) / N); 5 of them are missed by
// one in two million. The draws are fixed, so the test does not flicker.
TEST(WeightShardTest, StochasticRoundingIsUnbiased) {
  constexpr int64_t kDraws = 1 << 17;
  for (const WeightStorage storage : kRounding) {
    const int dropped = DroppedBits(storage);
    for (const uint32_t start : {0x3F800000U, 0xBFAB0000U, 0x00010000U, 0x7F000000U}) {
      for (const double fraction : {1.0 / 256, 0.25, 0.5, 0.8046875}) {
        const auto rest = static_cast<uint32_t>(fraction * (1 << dropped));
        const std::vector<float> in(kDraws, FromBits(start + rest));
        ShardMemory memory(storage, kDraws);
        WriteWeights(memory.shard, 0, kDraws, in.data(), 0, {start, rest});
        int64_t up = 0;
        for (const float value : memory.Read()) {
          ASSERT_TRUE(Bits(value) == start || Bits(value) == start + (1U << dropped));
          up += Bits(value) != start ? 1 : 0;
        }
        const double share = static_cast<double>(up) / kDraws;
        EXPECT_NEAR(share, fraction, 5 * std::sqrt(fraction * (1 - fraction) / kDraws))
            << EnumName(storage) << " from " << FromBits(start);
      }
    }
  }
}

TEST(WeightShardTest, RandomBitsAreTheDocumentedWords) {
  constexpr int64_t kCount = 37;
  constexpr int64_t kParamBegin = 5'000'000'003;
  const RoundingBits bits{0x123456789ABCDEFU, 41};
  const float value = FromBits(0x40490FDBU);
  const std::vector<float> in(kCount, value);
  for (const WeightStorage storage : kRounding) {
    ShardMemory memory(storage, kCount);
    WriteWeights(memory.shard, 0, kCount, in.data(), kParamBegin, bits);
    const std::vector<float> out = memory.Read();
    const uint32_t mask = (1U << DroppedBits(storage)) - 1;
    for (int64_t i = 0; i < kCount; ++i) {
      const auto element = static_cast<uint64_t>(kParamBegin + i);
      const uint32_t word = Philox4x32(bits.key, element / 4, bits.stream).value[element % 4];
      EXPECT_EQ(Bits(out[static_cast<size_t>(i)]), (Bits(value) + (word & mask)) & ~mask);
    }
  }
}

TEST(WeightShardTest, StoredBitsDoNotDependOnHowTheShardIsCut) {
  constexpr int64_t kCount = 5003;
  const RoundingBits bits{3, 9};
  std::vector<float> in(kCount);
  for (size_t i = 0; i < kCount; ++i) {
    in[i] = std::sin(static_cast<float>(i));
  }
  for (const WeightStorage storage : kAll) {
    ShardMemory whole(storage, kCount);
    WriteWeights(whole.shard, 0, kCount, in.data(), 0, bits);
    ShardMemory pieces(storage, kCount);
    for (int64_t begin = 0, width = 1; begin < kCount; begin += width, width = width * 3 + 1) {
      const int64_t count = std::min(width, kCount - begin);
      WriteWeights(pieces.shard, begin, count, in.data() + begin, begin, bits);
    }
    EXPECT_EQ(pieces.Read(), whole.Read()) << EnumName(storage);
  }
}

// By columns, of a tensor of rows of 50: runs that begin inside a draw, some shorter than one.
TEST(WeightShardTest, ASliceIsRoundedAsTheWholeIs) {
  constexpr int64_t kRows = 41;
  constexpr int64_t kColumns = 50;
  const std::vector<float> in(kRows * kColumns, FromBits(0x40490FDBU));
  for (const WeightStorage storage : kAll) {
    ShardMemory whole(storage, kRows * kColumns);
    WriteWeights(whole.shard, 0, kRows * kColumns, in.data(), 0, {3, 9});
    const std::vector<float> expected = whole.Read();
    for (const auto& [first, width] : {std::pair<int64_t, int64_t>{0, 8}, {7, 3}, {9, 41}}) {
      const RoundingBits bits{3, 9, {.begin = first, .run = width, .stride = kColumns}};
      ShardMemory slice(storage, kRows * width);
      // As two pieces, of which neither is whole rows.
      WriteWeights(slice.shard, 0, 100, in.data(), 0, bits);
      WriteWeights(slice.shard, 100, kRows * width - 100, in.data(), 100, bits);
      const std::vector<float> actual = slice.Read();
      for (int64_t i = 0; i < kRows * width; ++i) {
        const int64_t element = i / width * kColumns + first + i % width;
        ASSERT_EQ(actual[static_cast<size_t>(i)], expected[static_cast<size_t>(element)]) << i;
      }
    }
  }
}

TEST(WeightShardTest, AnotherKeyOrStreamRoundsDifferently) {
  constexpr int64_t kCount = 1000;
  const std::vector<float> in(kCount, 0.7F);
  ShardMemory a(WeightStorage::kBf16, kCount);
  ShardMemory b(WeightStorage::kBf16, kCount);
  ShardMemory c(WeightStorage::kBf16, kCount);
  WriteWeights(a.shard, 0, kCount, in.data(), 0, {1, 1});
  WriteWeights(b.shard, 0, kCount, in.data(), 0, {2, 1});
  WriteWeights(c.shard, 0, kCount, in.data(), 0, {1, 2});
  EXPECT_NE(a.Read(), b.Read());
  EXPECT_NE(a.Read(), c.Read());
}

// One rounding to a significand of p bits has a relative error of at most 2^-p to nearest, and less
// than 2^(1-p) in either direction.
TEST(WeightShardTest, ErrorsAreThoseOfTheDocumentedPrecision) {
  constexpr int64_t kCount = 10000;
  std::vector<float> in(kCount);
  for (size_t i = 0; i < kCount; ++i) {
    in[i] = std::exp(static_cast<float>(i) / 300.0F - 16.0F) * (i % 2 == 0 ? 1.0F : -1.0F);
  }
  for (const WeightStorage storage : kRounding) {
    const double nearest = storage == WeightStorage::kBf16 ? 0x1p-8 : 0x1p-16;
    ShardMemory memory(storage, kCount);
    WriteWeightsToNearest(memory.shard, 0, kCount, in.data());
    const std::vector<float> rounded = memory.Read();
    WriteWeights(memory.shard, 0, kCount, in.data(), 0, {1, 1});
    const std::vector<float> stochastic = memory.Read();
    for (size_t i = 0; i < kCount; ++i) {
      const auto exact = static_cast<double>(in[i]);
      ASSERT_LE(std::fabs(static_cast<double>(rounded[i]) - exact), nearest * std::fabs(exact));
      ASSERT_LT(std::fabs(static_cast<double>(stochastic[i]) - exact),
                2 * nearest * std::fabs(exact));
    }
  }
}

TEST(WeightShardDeathTest, RefusesElementsOutsideTheShard) {
  ShardMemory memory(WeightStorage::kFp32, 8);
  std::vector<float> out(8);
  EXPECT_DEATH(ReadWeights(memory.shard, 4, 5, out.data()), "9 vs. 8");
}

}  // namespace
}  // namespace panthera
