// Reading takes no memory: neither for large files nor for many samples of them.
#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/data/loader.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kLength = 1024;
// The most that an llm.c header can say.
constexpr int64_t kMostTokens = (int64_t{1} << 31) - 1;

// Bytes of this process that are in memory, pages of mapped files included.
int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  int64_t resident = 0;
  file >> pages >> resident;
  CHECK_GT(resident, 0);
  return resident * sysconf(_SC_PAGESIZE);
}

// An llm.c file of zeros but for its last two ids, 7 and 9; takes a few kilobytes of disk.
void WriteSparseLlmC(const std::string& path, int64_t tokens) {
  testing::WriteBytes(path, testing::LlmCBytes(20240520, 1, tokens, ""));
  ASSERT_EQ(truncate(path.c_str(), 1024 + 2 * tokens), 0);
  const int file = open(path.c_str(), O_WRONLY);
  ASSERT_GE(file, 0);
  const std::string last = testing::Ids({7, 9}, 2);
  ASSERT_EQ(pwrite(file, last.data(), last.size(), 1024 + 2 * (tokens - 2)),
            static_cast<ssize_t>(last.size()));
  close(file);
}

// A file that is stored, so that its pages are in the page cache and come many at a time.
void WriteWholeLlmC(const std::string& path, int64_t tokens) {
  testing::WriteBytes(path, testing::LlmCBytes(20240520, 1, tokens,
                                               std::string(static_cast<size_t>(2 * tokens), 1)));
}

class DataMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "ThreadSanitizer's own memory grows with what is read";
#endif
  }

  absl::StatusOr<DataLoader> Open(const std::string& path) {
    const std::vector<DataSource> sources = {{.path = path, .weight = 1}};
    return DataLoader::Open(sources, {kLength, 1000}, 4);
  }

  void Read(const DataLoader& loader, int64_t first, int64_t samples) {
    const Tensor tokens(tokens_.data(), {1, kLength}, DType::kI32, Device{});
    const Tensor targets(targets_.data(), {1, kLength}, DType::kI32, Device{});
    for (int64_t g = first; g < first + samples; ++g) {
      ASSERT_EQ(loader.Fill(g, tokens, targets), absl::OkStatus());
    }
  }

  TempDir dir_;
  std::vector<int32_t> tokens_ = std::vector<int32_t>(kLength);
  std::vector<int32_t> targets_ = std::vector<int32_t>(kLength);
};

TEST_F(DataMemoryTest, DoesNotGrowWithTheSizeOfTheFiles) {
  WriteSparseLlmC(dir_.File("small.bin"), 100 * kLength);
  WriteSparseLlmC(dir_.File("big_0.bin"), kMostTokens);
  WriteSparseLlmC(dir_.File("big_1.bin"), kMostTokens);
  int64_t grown[2] = {};
  for (const int which : {0, 1}) {
    const int64_t before = ResidentBytes();
    const auto loader = Open(dir_.File(which == 0 ? "small.bin" : "big_*"));
    ASSERT_TRUE(loader.ok()) << loader.status();
    Read(*loader, 0, 100);
    grown[which] = ResidentBytes() - before;
  }
  // 8 GiB against 200 KiB. Pages of the allocator and of the code come and go.
  EXPECT_LT(grown[1], grown[0] + 4 * kMiB);
}

TEST_F(DataMemoryTest, DoesNotGrowWithTheSamplesThatWereRead) {
  constexpr int64_t kTokens = 48 * kMiB;
  WriteWholeLlmC(dir_.File("data.bin"), kTokens);
  const auto loader = Open(dir_.File("data.bin"));
  ASSERT_TRUE(loader.ok()) << loader.status();
  Read(*loader, 0, 200);
  const int64_t before = ResidentBytes();
  // An epoch touches every page of 96 MiB.
  Read(*loader, 200, kTokens / kLength);
  EXPECT_LT(ResidentBytes(), before + 4 * kMiB);
}

TEST_F(DataMemoryTest, DoesNotGrowWithTheIndexOfAPair) {
  constexpr int64_t kSequences = 4 * kMiB;
  testing::MegatronIndex index;
  index.boundaries = {0, kSequences};
  // Laid out here, as a vector of ids would be larger than what is measured.
  std::string lengths;
  std::string offsets;
  for (int64_t i = 0; i < kSequences; ++i) {
    lengths += testing::LittleEndian(1, 4);
    offsets += testing::LittleEndian(static_cast<uint64_t>(2 * i), 8);
  }
  const std::string empty = index.Bytes();
  testing::WriteBytes(dir_.File("a.idx"),
                      empty.substr(0, 18) + testing::LittleEndian(kSequences, 8) +
                          testing::LittleEndian(2, 8) + lengths + offsets + empty.substr(34));
  testing::WriteBytes(dir_.File("a.bin"), std::string(2 * kSequences, 1));
  const int64_t before = ResidentBytes();
  const auto loader = Open(dir_.File("a"));
  ASSERT_TRUE(loader.ok()) << loader.status();
  // The index has 48 MiB.
  EXPECT_LT(ResidentBytes(), before + 8 * kMiB);
}

// Shards of 2^31 - 1 ids each: the last sample of the source lies beyond 2^32.
TEST_F(DataMemoryTest, ReadsLlmCShardsBeyondFourGigatokens) {
  WriteSparseLlmC(dir_.File("big_0.bin"), kMostTokens);
  WriteSparseLlmC(dir_.File("big_1.bin"), kMostTokens);
  WriteSparseLlmC(dir_.File("big_2.bin"), 5);
  const auto source = TokenSource::Open(dir_.File("big_*"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->tokens(), (int64_t{1} << 32) + 3);
  EXPECT_EQ(SamplesIn(*source, kLength), int64_t{1} << 22);
  std::vector<int32_t> ids(4);
  source->Read(kMostTokens - 2, 4, ids.data());
  EXPECT_THAT(ids, ElementsAre(7, 9, 0, 0));
  source->Read(2 * kMostTokens - 2, 4, ids.data());
  EXPECT_THAT(ids, ElementsAre(7, 9, 0, 0));
  source->Read(source->tokens() - 4, 4, ids.data());
  EXPECT_THAT(ids, ElementsAre(0, 0, 7, 9));
  EXPECT_THAT(source->Describe(source->tokens() - 1), HasSubstr("big_2.bin token 4"));
  const auto set = ValidationSet::Open(
      std::vector<DataSource>{{.path = dir_.File("big_*"), .weight = 1}}, {kLength, 1000}, 0);
  ASSERT_TRUE(set.ok()) << set.status();
  const Tensor tokens(tokens_.data(), {1, kLength}, DType::kI32, Device{});
  const Tensor targets(targets_.data(), {1, kLength}, DType::kI32, Device{});
  ASSERT_EQ(set->Fill(set->size() - 1, tokens, targets), absl::OkStatus());
  // Sample 2^22 - 1 ends with id 2^32, the third of the last file. The last two ids of the second
  // file are its targets 2^32 - 4 and 2^32 - 3.
  EXPECT_EQ(targets_[kLength - 4], 9);
  EXPECT_EQ(targets_[kLength - 5], 7);
  targets_[kLength - 4] = targets_[kLength - 5] = 0;
  EXPECT_THAT(targets_, Each(0));
}

}  // namespace
}  // namespace panthera
