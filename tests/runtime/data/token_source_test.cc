#include "runtime/data/token_source.h"

#include <unistd.h>

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::Ids;
using ::panthera::testing::LlmCBytes;
using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;
using ::panthera::testing::WritePair;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int32_t> Read(const TokenSource& source, int64_t begin, int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  source.WillNeed(begin, count);
  source.Read(begin, count, ids.data());
  return ids;
}

class TokenSourceTest : public ::testing::Test {
 protected:
  // Shards of both formats and widths, one of them empty, and files that are none.
  TokenSourceTest() {
    WritePair(dir_.File("train_2"), {5, 6});
    WriteBytes(dir_.File("train_1.bin"), LlmCBytes(20240801, 7, 3, Ids({70000, 3, 4}, 4)));
    WriteBytes(dir_.File("train_0.bin"), LlmCBytes(20240520, 1, 2, Ids({1, 2}, 2)));
    WriteBytes(dir_.File("train_15.bin"), LlmCBytes(20240520, 1, 0, ""));
    WriteBytes(dir_.File("train_2.json"), "{}");
    WriteBytes(dir_.File("train_3.bin.partial"), "x");
    WritePair(dir_.File("validation"), {9});
  }

  TempDir dir_;
};

TEST_F(TokenSourceTest, JoinsShardsInTheOrderOfTheirNames) {
  const auto source = TokenSource::Open(dir_.File("train_*"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->files().size(), 4U);
  EXPECT_EQ(source->tokens(), 7);
  EXPECT_THAT(Read(*source, 0, 7), ElementsAre(1, 2, 70000, 3, 4, 5, 6));
}

TEST_F(TokenSourceTest, ReadsEveryRange) {
  const auto source = TokenSource::Open(dir_.File("train_*"));
  ASSERT_TRUE(source.ok()) << source.status();
  const std::vector<int32_t> all = Read(*source, 0, 7);
  for (int64_t begin = 0; begin <= 7; ++begin) {
    for (int64_t count = 0; begin + count <= 7; ++count) {
      const std::vector<int32_t> expected(all.begin() + begin, all.begin() + begin + count);
      EXPECT_EQ(Read(*source, begin, count), expected) << begin << " " << count;
    }
  }
}

TEST_F(TokenSourceTest, ReadsOneFile) {
  const auto source = TokenSource::Open(dir_.File("validation"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_THAT(Read(*source, 0, 1), ElementsAre(9));
}

TEST_F(TokenSourceTest, DescribesAPositionByItsFile) {
  const auto source = TokenSource::Open(dir_.File("train_*"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(source->Describe(1), dir_.File("train_0.bin") + " token 1");
  EXPECT_EQ(source->Describe(2), dir_.File("train_1.bin") + " token 0");
  EXPECT_EQ(source->Describe(6), dir_.File("train_2.bin") + " token 1");
}

TEST_F(TokenSourceTest, ChecksTheVocabularyOfEveryShard) {
  const auto source = TokenSource::Open(dir_.File("train_*"));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE(source->CheckVocabulary(70001).ok());
  EXPECT_THAT(std::string(source->CheckVocabulary(70000).message()),
              HasSubstr("train_1.bin has id 70000 at token 0"));
}

TEST_F(TokenSourceTest, NamesAPatternWithoutFiles) {
  EXPECT_THAT(std::string(TokenSource::Open(dir_.File("test_*")).status().message()),
              HasSubstr("match " + dir_.File("test_*")));
  EXPECT_THAT(std::string(TokenSource::Open(dir_.File("no/*")).status().message()),
              HasSubstr("cannot list the directory " + dir_.File("no")));
}

TEST_F(TokenSourceTest, NamesAShardWithoutItsIds) {
  unlink(dir_.File("train_2.bin").c_str());
  EXPECT_THAT(std::string(TokenSource::Open(dir_.File("train_*")).status().message()),
              HasSubstr("train_2.bin is missing"));
}

}  // namespace
}  // namespace panthera
