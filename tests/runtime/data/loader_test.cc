#include "runtime/data/loader.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::TempDir;
using ::panthera::testing::WritePair;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two host tensors [B, T] with memory of their own.
struct Batch {
  Batch(int64_t rows, int64_t length)
      : token_ids(static_cast<size_t>(rows * length), -7),
        target_ids(static_cast<size_t>(rows * length), -7),
        tokens(token_ids.data(), {rows, length}, DType::kI32, Device{}),
        targets(target_ids.data(), {rows, length}, DType::kI32, Device{}) {}

  std::vector<int32_t> token_ids;
  std::vector<int32_t> target_ids;
  Tensor tokens;
  Tensor targets;
};

std::vector<int64_t> Range(int64_t begin, int64_t end) {
  std::vector<int64_t> values(static_cast<size_t>(end - begin));
  std::iota(values.begin(), values.end(), begin);
  return values;
}

class LoaderTest : public ::testing::Test {
 protected:
  // A source whose ids say where they stand: first, first + 1, ...
  DataSource Source(const std::string& name, int64_t first, int64_t tokens, double weight) {
    WritePair(dir_.File(name), Range(first, first + tokens));
    return {.path = dir_.File(name), .weight = weight};
  }

  static DataLoader Open(const std::vector<DataSource>& sources, int64_t length, int64_t vocab_size,
                         int64_t seed) {
    auto loader = DataLoader::Open(sources, {length, vocab_size}, seed);
    CHECK_OK(loader.status());
    return *std::move(loader);
  }

  static std::string OpenError(const std::vector<DataSource>& sources, int64_t length) {
    return std::string(DataLoader::Open(sources, {length, 1000}, 0).status().message());
  }

  TempDir dir_;
};

TEST_F(LoaderTest, AnEpochUsesEveryTargetOnce) {
  // 3 samples of 4 targets; the ids 13 and 14 of the last partial sample are dropped.
  const DataLoader loader = Open({Source("a", 0, 15, 1)}, 4, 1000, 3);
  EXPECT_EQ(loader.tokens(), 15);
  Batch batch(3, 4);
  ASSERT_TRUE(loader.Fill(0, batch.tokens, batch.targets).ok());
  for (size_t i = 0; i < batch.token_ids.size(); ++i) {
    EXPECT_EQ(batch.target_ids[i], batch.token_ids[i] + 1);
  }
  std::sort(batch.target_ids.begin(), batch.target_ids.end());
  EXPECT_THAT(batch.target_ids, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));
}

TEST_F(LoaderTest, CountsEveryIdOfEverySourceOnceAndNoneOutsideTheVocabulary) {
  const DataLoader loader = Open({Source("a", 0, 15, 1), Source("b", 10, 10, 3)}, 4, 18, 3);
  std::vector<int64_t> expected(18, 1);
  std::fill(expected.begin() + 10, expected.begin() + 15, 2);
  EXPECT_EQ(loader.CountIds(1000), expected);
}

// Pieces of 16,384 ids: of ten every third one is read, and the first is among them.
TEST_F(LoaderTest, CountsPiecesAtEqualDistancesOfMoreIdsThanItMay) {
  constexpr int64_t kPiece = 16384;
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 10 * kPiece; ++i) {
    ids.push_back(i / kPiece);
  }
  WritePair(dir_.File("pieces"), ids);
  const DataLoader loader = Open({{.path = dir_.File("pieces"), .weight = 1}}, 4, 10, 3);
  std::vector<int64_t> expected(10);
  for (size_t piece = 0; piece < 10; piece += 3) {
    expected[piece] = kPiece;
  }
  EXPECT_EQ(loader.CountIds(4 * kPiece), expected);
}

// As above, but each piece is a source of its own: many short ones are not read whole either.
TEST_F(LoaderTest, CountsNoMoreOfManyShortSources) {
  constexpr int64_t kPiece = 16384;
  std::vector<DataSource> sources;
  for (int64_t i = 0; i < 10; ++i) {
    sources.push_back({.path = dir_.File(absl::StrCat("short", i)), .weight = 1});
    WritePair(sources.back().path, std::vector<int64_t>(kPiece, i));
  }
  std::vector<int64_t> expected(10);
  for (size_t piece = 0; piece < 10; piece += 3) {
    expected[piece] = kPiece;
  }
  EXPECT_EQ(Open(sources, 4, 10, 3).CountIds(4 * kPiece), expected);
}

TEST_F(LoaderTest, OneMoreIdThanASampleIsEnough) {
  const DataLoader loader = Open({Source("a", 0, 5, 1)}, 4, 1000, 3);
  Batch batch(2, 4);
  ASSERT_TRUE(loader.Fill(0, batch.tokens, batch.targets).ok());
  EXPECT_THAT(batch.token_ids, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  EXPECT_THAT(batch.target_ids, ElementsAre(1, 2, 3, 4, 1, 2, 3, 4));
}

TEST_F(LoaderTest, BatchesOfAnySizeFromAnywhereGiveTheSameSamples) {
  const std::vector<DataSource> sources = {Source("a", 0, 41, 2), Source("b", 500, 33, 1)};
  Batch whole(24, 4);
  ASSERT_TRUE(Open(sources, 4, 1000, 9).Fill(0, whole.tokens, whole.targets).ok());
  // As another number of ranks would ask, in a process that starts later.
  const DataLoader resumed = Open(sources, 4, 1000, 9);
  for (int64_t first = 22; first >= 0; first -= 2) {
    Batch part(2, 4);
    ASSERT_TRUE(resumed.Fill(first, part.tokens, part.targets).ok());
    EXPECT_TRUE(std::equal(part.token_ids.begin(), part.token_ids.end(),
                           whole.token_ids.begin() + first * 4));
    EXPECT_TRUE(std::equal(part.target_ids.begin(), part.target_ids.end(),
                           whole.target_ids.begin() + first * 4));
  }
}

TEST_F(LoaderTest, RowsComeFromTheSourceThatTheOrderNames) {
  const DataLoader loader = Open({Source("a", 0, 41, 2), Source("b", 500, 33, 1)}, 4, 1000, 9);
  Batch batch(30, 4);
  ASSERT_TRUE(loader.Fill(0, batch.tokens, batch.targets).ok());
  int64_t from_a = 0;
  for (int64_t row = 0; row < 30; ++row) {
    const SampleOrder::Sample sample = loader.At(row);
    const int64_t base = sample.source == 0 ? 0 : 500;
    EXPECT_EQ(batch.token_ids[static_cast<size_t>(row * 4)], base + 4 * sample.index);
    from_a += sample.source == 0 ? 1 : 0;
  }
  EXPECT_EQ(from_a, 20);
}

TEST_F(LoaderTest, SamplesCrossShards) {
  WritePair(dir_.File("s_0"), Range(0, 3));
  WritePair(dir_.File("s_1"), Range(3, 9));
  const DataLoader loader = Open({{.path = dir_.File("s_*"), .weight = 1}}, 8, 1000, 0);
  Batch batch(1, 8);
  ASSERT_TRUE(loader.Fill(0, batch.tokens, batch.targets).ok());
  EXPECT_THAT(batch.token_ids, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(batch.target_ids, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

TEST_F(LoaderTest, SamplesCrossTheEndsOfDocuments) {
  testing::MegatronIndex index;
  index.lengths = {3, 2, 4};
  index.offsets = {0, 6, 10};
  index.boundaries = {0, 1, 2, 3};
  testing::WriteBytes(dir_.File("d.idx"), index.Bytes());
  testing::WriteBytes(dir_.File("d.bin"), testing::Ids(Range(10, 19), 2));
  const DataLoader loader = Open({{.path = dir_.File("d"), .weight = 1}}, 8, 1000, 0);
  Batch batch(1, 8);
  ASSERT_TRUE(loader.Fill(0, batch.tokens, batch.targets).ok());
  EXPECT_THAT(batch.token_ids, ElementsAre(10, 11, 12, 13, 14, 15, 16, 17));
  EXPECT_THAT(batch.target_ids, ElementsAre(11, 12, 13, 14, 15, 16, 17, 18));
}

// What is left over at the end of a source is dropped there, not joined with the next source; what
// is left over at the end of a shard goes on in the next shard.
TEST_F(LoaderTest, TheLastPartialSampleIsDroppedOncePerSource) {
  // Ids 0..6 and 100..110 in two formats and widths are one source of 18: 4 samples and one id.
  WritePair(dir_.File("s_0"), Range(0, 7));
  testing::WriteBytes(dir_.File("s_1.bin"),
                      testing::LlmCBytes(20240801, 7, 11, testing::Ids(Range(100, 111), 4)));
  const DataLoader loader =
      Open({{.path = dir_.File("s_*"), .weight = 4}, Source("b", 500, 8, 1)}, 4, 1000, 9);
  Batch batch(5, 4);
  ASSERT_TRUE(loader.Fill(0, batch.tokens, batch.targets).ok());
  std::sort(batch.target_ids.begin(), batch.target_ids.end());
  EXPECT_THAT(batch.target_ids, ElementsAre(1, 2, 3, 4, 5, 6, 100, 101, 102, 103, 104, 105, 106,
                                            107, 108, 109, 501, 502, 503, 504));
}

TEST_F(LoaderTest, ATooShortSourceSaysWhatItHasAndNeeds) {
  EXPECT_THAT(
      OpenError({Source("a", 0, 100, 1), Source("b", 0, 4, 1)}, 4),
      HasSubstr(dir_.File("b") + " has 4 tokens, but one sample of sequence length 4 needs 5"));
}

TEST_F(LoaderTest, RefusesMissingSourcesAndWeights) {
  EXPECT_THAT(OpenError({}, 4), HasSubstr("no token files are given"));
  EXPECT_THAT(OpenError({Source("a", 0, 100, 0)}, 4), HasSubstr("a weight must be above 0"));
  EXPECT_THAT(OpenError({{.path = dir_.File("x"), .weight = 1}}, 4), HasSubstr("looked for"));
}

TEST_F(LoaderTest, AnIdOutsideTheVocabularyIsNamedWhereItIsRead) {
  // Inputs, targets, and the last target, which no input shares.
  for (const int64_t vocab_size : {0 + 1, 2 + 1, 3 + 1}) {
    const DataLoader loader = Open({Source("a", 0, 5, 1)}, 4, vocab_size, 3);
    Batch batch(1, 4);
    const absl::Status status = loader.Fill(0, batch.tokens, batch.targets);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("a.bin token " + std::to_string(vocab_size) + " has id " +
                          std::to_string(vocab_size)));
    EXPECT_THAT(std::string(loader.CheckVocabulary().message()), HasSubstr("outside the vocab"));
  }
  EXPECT_TRUE(Open({Source("a", 0, 5, 1)}, 4, 5, 3).CheckVocabulary().ok());
}

TEST_F(LoaderTest, ValidationIsAllSamplesInFileOrder) {
  const std::vector<DataSource> sources = {Source("a", 0, 9, 1), Source("b", 500, 6, 100)};
  const auto set = ValidationSet::Open(sources, {4, 1000}, 0);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->size(), 3);
  Batch batch(3, 4);
  ASSERT_TRUE(set->Fill(0, batch.tokens, batch.targets).ok());
  EXPECT_THAT(batch.token_ids, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 500, 501, 502, 503));
  Batch last(1, 4);
  ASSERT_TRUE(set->Fill(2, last.tokens, last.targets).ok());
  EXPECT_THAT(last.target_ids, ElementsAre(501, 502, 503, 504));
}

TEST_F(LoaderTest, ALimitedValidationSetDrawsOnSourcesByTheirSize) {
  // 20 and 10 samples.
  const std::vector<DataSource> sources = {Source("a", 0, 81, 1), Source("b", 500, 41, 100)};
  const auto set = ValidationSet::Open(sources, {4, 1000}, 6);
  ASSERT_TRUE(set.ok()) << set.status();
  ASSERT_EQ(set->size(), 6);
  Batch batch(6, 4);
  ASSERT_TRUE(set->Fill(0, batch.tokens, batch.targets).ok());
  std::vector<int32_t> begins;
  for (size_t row = 0; row < 6; ++row) {
    begins.push_back(batch.token_ids[row * 4]);
  }
  EXPECT_THAT(begins, ElementsAre(0, 4, 8, 12, 500, 504));
}

TEST_F(LoaderTest, ALimitAboveAllSamplesTakesAll) {
  const auto set =
      ValidationSet::Open(std::vector<DataSource>{Source("a", 0, 9, 1)}, {4, 1000}, 99);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->size(), 2);
}

}  // namespace
}  // namespace panthera
