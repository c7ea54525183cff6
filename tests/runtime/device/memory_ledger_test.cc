#include "runtime/device/memory_ledger.h"

#include <cstdint>

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(MemoryLedgerTest, AddsUpByCategoryAndName) {
  MemoryLedger ledger;
  ledger.Add(MemoryCategory::kWeights, "matrix", 100);
  ledger.Add(MemoryCategory::kGradients, "matrix", 10);
  ledger.Add(MemoryCategory::kWeights, "table", 7);
  ledger.Add(MemoryCategory::kWeights, "matrix", 1);
  EXPECT_EQ(ledger.bytes(MemoryCategory::kWeights), 108);
  EXPECT_EQ(ledger.bytes(MemoryCategory::kGradients), 10);
  EXPECT_EQ(ledger.bytes(MemoryCategory::kData), 0);
  EXPECT_EQ(ledger.total_bytes(), 118);
  ASSERT_EQ(ledger.entries().size(), 3U);
  EXPECT_EQ(ledger.entries()[0].name, "matrix");
  EXPECT_EQ(ledger.entries()[0].bytes, 101);
  EXPECT_EQ(ledger.entries()[1].category, MemoryCategory::kGradients);
  EXPECT_EQ(ledger.entries()[2].name, "table");
}

TEST(MemoryLedgerTest, RemovingTakesBackWhatWasAdded) {
  MemoryLedger ledger;
  ledger.Add(MemoryCategory::kWeights, "matrix", 100);
  ledger.Add(MemoryCategory::kGradients, "matrix", 10);
  ledger.Remove(MemoryCategory::kWeights, "matrix", 40);
  EXPECT_EQ(ledger.bytes(MemoryCategory::kWeights), 60);
  ledger.Remove(MemoryCategory::kWeights, "matrix", 60);
  EXPECT_EQ(ledger.total_bytes(), 10);
}

TEST(MemoryLedgerDeathTest, RefusesToRemoveWhatIsNotThere) {
  MemoryLedger ledger;
  ledger.Add(MemoryCategory::kWeights, "matrix", 100);
  EXPECT_DEATH(ledger.Remove(MemoryCategory::kWeights, "table", 1), "table was never added");
  EXPECT_DEATH(ledger.Remove(MemoryCategory::kData, "matrix", 1), "matrix was never added");
  EXPECT_DEATH(ledger.Remove(MemoryCategory::kWeights, "matrix", 101), "100 vs. 101\\) matrix");
}

TEST(FormatBytesTest, HasAtMostFourSignificantCharacters) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.50 KiB");
  EXPECT_EQ(FormatBytes(int64_t{20} << 20), "20.0 MiB");
  EXPECT_EQ(FormatBytes(int64_t{300} << 30), "300 GiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 40), "5.00 TiB");
}

}  // namespace
}  // namespace panthera
