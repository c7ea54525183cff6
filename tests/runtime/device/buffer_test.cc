#include "runtime/device/buffer.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include <gtest/gtest.h>

namespace panthera {
namespace {

constexpr Device kMeta{DeviceKind::kMeta, 0};

Buffer MakeBuffer(MemoryLedger& ledger, int64_t bytes, Device device = {}) {
  return {device, ledger, MemoryCategory::kWeights, "matrix", bytes};
}

TEST(BufferTest, IsZeroedAndAligned) {
  MemoryLedger ledger;
  // A byte, a page, and enough for huge pages with an odd rest.
  for (const int64_t bytes : {1, 4096, (5 << 20) + 3}) {
    const Buffer buffer = MakeBuffer(ledger, bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0U);
    EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + bytes,
                            [](std::byte byte) { return byte == std::byte{0}; }));
    std::fill_n(buffer.data(), bytes, std::byte{1});
  }
}

TEST(BufferTest, IsInTheLedgerForAsLongAsItLives) {
  MemoryLedger ledger;
  {
    const Buffer one = MakeBuffer(ledger, 100);
    const Buffer two = MakeBuffer(ledger, 30, kMeta);
    EXPECT_EQ(ledger.bytes(MemoryCategory::kWeights), 130);
  }
  EXPECT_EQ(ledger.total_bytes(), 0);
}

TEST(BufferTest, MetaHasSizeAndNoMemory) {
  MemoryLedger ledger;
  const Buffer buffer = MakeBuffer(ledger, int64_t{1} << 50, kMeta);
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.bytes(), int64_t{1} << 50);
  const Tensor view = buffer.View({4}, DType::kF32, 16);
  EXPECT_EQ(view.bytes_data(), nullptr);
  EXPECT_EQ(view.device(), kMeta);
}

TEST(BufferTest, MovingPassesMemoryAndEntryOn) {
  MemoryLedger ledger;
  Buffer source = MakeBuffer(ledger, 100);
  std::byte* const memory = source.data();
  Buffer target(std::move(source));
  EXPECT_EQ(target.data(), memory);
  EXPECT_EQ(target.bytes(), 100);
  EXPECT_EQ(source.data(), nullptr);  // NOLINT(bugprone-use-after-move): empty is the contract
  EXPECT_EQ(source.bytes(), 0);
  EXPECT_EQ(ledger.total_bytes(), 100);
}

TEST(BufferTest, AssigningReleasesWhatWasHeld) {
  MemoryLedger ledger;
  Buffer target = MakeBuffer(ledger, 100);
  Buffer source = MakeBuffer(ledger, 30);
  std::byte* const memory = source.data();
  target = std::move(source);
  EXPECT_EQ(target.data(), memory);
  EXPECT_EQ(ledger.total_bytes(), 30);
  target = Buffer();
  EXPECT_EQ(target.data(), nullptr);
  EXPECT_EQ(ledger.total_bytes(), 0);
}

TEST(BufferTest, ViewsBeginWhereToldAndShareMemory) {
  MemoryLedger ledger;
  const Buffer buffer = MakeBuffer(ledger, 64);
  const Tensor view = buffer.View({2, 3}, DType::kF32, 40);
  EXPECT_EQ(view.bytes_data(), buffer.data() + 40);
  view.data<float>()[5] = 2.5F;
  EXPECT_EQ(buffer.View({16}, DType::kF32).data<float>()[15], 2.5F);
}

TEST(BufferDeathTest, ViewsMustLieInside) {
  MemoryLedger ledger;
  const Buffer buffer = MakeBuffer(ledger, 64);
  EXPECT_DEATH((void)buffer.View({17}, DType::kF32),
               "68 vs. 64.*\\[17\\] of fp32 at byte 0 of matrix");
  EXPECT_DEATH((void)buffer.View({16}, DType::kF32, 4), "68 vs. 64");
  EXPECT_DEATH((void)buffer.View({1}, DType::kF32, 2), "2 vs. 0");
  EXPECT_DEATH((void)buffer.View({1}, DType::kF32, -4), "-4 vs. 0");
}

TEST(BufferDeathTest, MemoryThatCannotBeHadIsNamed) {
  MemoryLedger ledger;
  EXPECT_DEATH((void)MakeBuffer(ledger, std::numeric_limits<int64_t>::max() / 4096 * 4096),
               "out of host memory: .* for matrix; run `panthera plan`");
}

}  // namespace
}  // namespace panthera
