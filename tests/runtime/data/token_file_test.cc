#include "runtime/data/token_file.h"

#include <unistd.h>

#include <functional>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::Ids;
using ::panthera::testing::LlmCBytes;
using ::panthera::testing::MegatronIndex;
using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int32_t> Read(const TokenFile& file, int64_t begin, int64_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  file.Read(begin, count, ids.data());
  return ids;
}

std::string OpenError(const std::string& path) {
  return std::string(TokenFile::Open(path).status().message());
}

// Five ids in three sequences; the first document has two of them, the second one, the third none.
MegatronIndex SmallIndex(int id_bytes) {
  MegatronIndex index;
  index.type = id_bytes == 2 ? 8 : 4;
  index.lengths = {2, 1, 2};
  index.offsets = {0, 2 * id_bytes, 3 * id_bytes};
  index.boundaries = {0, 2, 3, 3};
  return index;
}

class TokenFileTest : public ::testing::Test {
 protected:
  void WriteSmallPair(int id_bytes, const std::vector<int64_t>& ids) {
    WriteBytes(dir_.File("a.bin"), Ids(ids, id_bytes));
    WriteBytes(dir_.File("a.idx"), SmallIndex(id_bytes).Bytes());
  }

  TempDir dir_;
};

TEST_F(TokenFileTest, ReadsMegatronUint16ByAnyOfItsNames) {
  WriteSmallPair(2, {7, 40000, 65535, 0, 258});
  for (const char* name : {"a", "a.bin", "a.idx"}) {
    const auto file = TokenFile::Open(dir_.File(name));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->path(), dir_.File("a.bin"));
    EXPECT_EQ(file->type(), TokenType::kUint16);
    EXPECT_EQ(file->tokens(), 5);
    EXPECT_THAT(Read(*file, 0, 5), ElementsAre(7, 40000, 65535, 0, 258));
    EXPECT_THAT(Read(*file, 2, 2), ElementsAre(65535, 0));
    EXPECT_THAT(Read(*file, 5, 0), ElementsAre());
  }
}

TEST_F(TokenFileTest, ReadsMegatronInt32) {
  WriteSmallPair(4, {7, 70000, 2147483647, 0, 1});
  const auto file = TokenFile::Open(dir_.File("a"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->type(), TokenType::kInt32);
  EXPECT_THAT(Read(*file, 0, 5), ElementsAre(7, 70000, 2147483647, 0, 1));
}

TEST_F(TokenFileTest, TellsWhereDocumentsBegin) {
  for (const int id_bytes : {2, 4}) {
    WriteSmallPair(id_bytes, {1, 2, 3, 4, 5});
    const auto file = TokenFile::Open(dir_.File("a"));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->documents(), 3);
    EXPECT_EQ(file->DocumentBegin(0), 0);
    EXPECT_EQ(file->DocumentBegin(1), 3);
    EXPECT_EQ(file->DocumentBegin(2), 5);
    EXPECT_EQ(file->DocumentBegin(3), 5);
  }
}

TEST_F(TokenFileTest, AcceptsMultimodalModesAfterTheIndex) {
  WriteSmallPair(2, {1, 2, 3, 4, 5});
  MegatronIndex index = SmallIndex(2);
  index.trailer = std::string(3, '\1');
  WriteBytes(dir_.File("a.idx"), index.Bytes());
  EXPECT_TRUE(TokenFile::Open(dir_.File("a")).ok());
}

TEST_F(TokenFileTest, ReadsLlmCUint16) {
  WriteBytes(dir_.File("x.bin"), LlmCBytes(20240520, 1, 3, Ids({50256, 0, 65535}, 2)));
  const auto file = TokenFile::Open(dir_.File("x.bin"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->documents(), 1);
  EXPECT_EQ(file->DocumentBegin(0), 0);
  EXPECT_EQ(file->DocumentBegin(1), 3);
  EXPECT_THAT(Read(*file, 0, 3), ElementsAre(50256, 0, 65535));
}

TEST_F(TokenFileTest, ReadsLlmCUint32UnderAnyName) {
  WriteBytes(dir_.File("llama"), LlmCBytes(20240801, 7, 3, Ids({128000, 1, 65536}, 4)));
  const auto file = TokenFile::Open(dir_.File("llama"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(Read(*file, 0, 3), ElementsAre(128000, 1, 65536));
}

TEST_F(TokenFileTest, AnIndexBesideTheFileDecidesEvenAgainstLlmCsMagicNumber) {
  const std::string bytes = LlmCBytes(20240520, 1, 0, "");
  WriteBytes(dir_.File("a.bin"), bytes);
  MegatronIndex index;
  index.lengths = {512};
  index.offsets = {0};
  index.boundaries = {0, 1};
  WriteBytes(dir_.File("a.idx"), index.Bytes());
  const auto file = TokenFile::Open(dir_.File("a.bin"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tokens(), 512);
}

TEST_F(TokenFileTest, NamesWhatItLookedFor) {
  const std::string path = dir_.File("none");
  EXPECT_THAT(OpenError(path), HasSubstr("no token file found: looked for " + path + ", " + path +
                                         ".idx and " + path + ".bin;"));
}

TEST_F(TokenFileTest, NamesTheMissingHalfOfAPair) {
  WriteSmallPair(2, {1, 2, 3, 4, 5});
  unlink(dir_.File("a.bin").c_str());
  EXPECT_THAT(OpenError(dir_.File("a")), HasSubstr("a.bin is missing"));
  EXPECT_THAT(OpenError(dir_.File("a.idx")), HasSubstr("a.bin is missing"));
}

TEST_F(TokenFileTest, RefusesAnUnknownFile) {
  WriteBytes(dir_.File("a.bin"), "some text that is no token file");
  EXPECT_THAT(OpenError(dir_.File("a.bin")), HasSubstr("is not a token file"));
  WriteBytes(dir_.File("empty.bin"), "");
  EXPECT_THAT(OpenError(dir_.File("empty.bin")), HasSubstr("is not a token file"));
}

TEST_F(TokenFileTest, RefusesDamagedLlmCFiles) {
  const std::string good = LlmCBytes(20240520, 1, 3, Ids({1, 2, 3}, 2));
  const std::pair<std::string, const char*> cases[] = {
      {good.substr(0, good.size() - 1), "its header says 3 tokens"},
      {good + "x", "its header says 3 tokens"},
      {good.substr(0, 900), "is cut short: 900 bytes"},
      {LlmCBytes(20240520, 2, 3, Ids({1, 2, 3}, 2)), "has version 2"},
      {LlmCBytes(20240801, 1, 3, Ids({1, 2, 3}, 4)), "has version 1"},
      {LlmCBytes(20240520, 1, -1, ""), "its header says -1 tokens"},
  };
  for (const auto& [bytes, error] : cases) {
    WriteBytes(dir_.File("x.bin"), bytes);
    EXPECT_THAT(OpenError(dir_.File("x.bin")), HasSubstr(error));
    EXPECT_THAT(OpenError(dir_.File("x.bin")), HasSubstr(dir_.File("x.bin")));
  }
}

TEST_F(TokenFileTest, RefusesDamagedIndices) {
  const std::pair<std::function<void(MegatronIndex&)>, const char*> cases[] = {
      {[](MegatronIndex& i) { i.magic[0] = 'X'; }, "is not a Megatron index"},
      {[](MegatronIndex& i) { i.version = 2; }, "has version 2"},
      {[](MegatronIndex& i) { i.type = 6; }, "has type code 6"},
      {[](MegatronIndex& i) { i.trailer.push_back('x'); }, "does not fit its"},
      {[](MegatronIndex& i) { i.boundaries.clear(); }, "no document boundaries"},
      {[](MegatronIndex& i) { i.lengths[1] = -1; }, "sequence 1 has -1 tokens"},
      {[](MegatronIndex& i) { i.offsets[0] = 2; }, "sequence 0 has 2 tokens at byte 2"},
      {[](MegatronIndex& i) { i.offsets[2] = 4; },
       "sequence 2 has 2 tokens at byte 4, but the "
       "one before ends at byte 6"},
      {[](MegatronIndex& i) { i.offsets[2] = int64_t{1} << 62; }, "sequence 2"},
      {[](MegatronIndex& i) { i.lengths[2] = 1; }, "has 10 bytes, but"},
      {[](MegatronIndex& i) { i.lengths[2] = 3; }, "describes 12"},
      {[](MegatronIndex& i) { i.type = 4; }, "sequence 1"},
      {[](MegatronIndex& i) { i.boundaries[0] = 1; }, "document boundary 0 is 1"},
      {[](MegatronIndex& i) { i.boundaries[2] = 1; }, "document boundary 2 is 1"},
      {[](MegatronIndex& i) { i.boundaries[2] = 4; }, "document boundary 2 is 4"},
      {[](MegatronIndex& i) { i.boundaries[3] = 2; }, "document boundary 3 is 2"},
  };
  WriteSmallPair(2, {1, 2, 3, 4, 5});
  for (const auto& [damage, error] : cases) {
    MegatronIndex index = SmallIndex(2);
    damage(index);
    WriteBytes(dir_.File("a.idx"), index.Bytes());
    EXPECT_THAT(OpenError(dir_.File("a")), HasSubstr(error));
  }
}

TEST_F(TokenFileTest, RefusesAnIndexCutAtAnyByte) {
  WriteSmallPair(2, {1, 2, 3, 4, 5});
  const std::string index = SmallIndex(2).Bytes();
  for (size_t size = 0; size < index.size(); ++size) {
    WriteBytes(dir_.File("a.idx"), index.substr(0, size));
    EXPECT_FALSE(TokenFile::Open(dir_.File("a")).ok()) << size;
  }
}

TEST_F(TokenFileTest, RefusesCountsThatWouldOverflow) {
  WriteSmallPair(2, {1, 2, 3, 4, 5});
  std::string index = SmallIndex(2).Bytes();
  // 12 * sequences + 8 * boundaries wraps to the very size of the file.
  const uint64_t wrapped = (uint64_t{1} << 62) + 3;
  index.replace(18, 8, testing::LittleEndian(wrapped, 8));
  WriteBytes(dir_.File("a.idx"), index);
  EXPECT_THAT(OpenError(dir_.File("a")), HasSubstr("does not fit its"));
}

TEST_F(TokenFileTest, RefusesIdsCutShort) {
  WriteSmallPair(2, {1, 2, 3, 4});
  EXPECT_THAT(OpenError(dir_.File("a")), HasSubstr("has 8 bytes, but"));
}

TEST_F(TokenFileTest, FindsTheFirstIdOutsideTheVocabulary) {
  WriteSmallPair(2, {5, 99, 100, 3, 300});
  const auto file = TokenFile::Open(dir_.File("a"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->CheckVocabulary(301).ok());
  EXPECT_THAT(std::string(file->CheckVocabulary(300).message()),
              HasSubstr("has id 300 at token 4, outside the vocabulary of 300"));
  EXPECT_THAT(std::string(file->CheckVocabulary(100).message()), HasSubstr("id 100 at token 2"));
}

TEST_F(TokenFileTest, TakesNegativeIdsAsOutsideTheVocabulary) {
  WriteSmallPair(4, {5, 1, 2, -1, 0});
  const auto file = TokenFile::Open(dir_.File("a"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(std::string(file->CheckVocabulary(100).message()), HasSubstr("id -1 at token 3"));
}

TEST_F(TokenFileTest, FindsTheFirstOfManyBadIdsInABigFile) {
  // More ids than one block of the scan, so that several threads find some.
  std::vector<int64_t> ids(10 << 20, 1);
  ids[5000001] = 9;
  ids[9000000] = 8;
  WriteBytes(dir_.File("x.bin"),
             LlmCBytes(20240520, 1, static_cast<int64_t>(ids.size()), Ids(ids, 2)));
  const auto file = TokenFile::Open(dir_.File("x.bin"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(std::string(file->CheckVocabulary(8).message()), HasSubstr("id 9 at token 5000001"));
  EXPECT_THAT(std::string(file->CheckVocabulary(9).message()), HasSubstr("id 9 at token 5000001"));
  EXPECT_TRUE(file->CheckVocabulary(10).ok());
}

TEST_F(TokenFileTest, FingerprintIsThatOfTheContentsAlone) {
  WriteSmallPair(2, {7, 40000, 65535, 0, 258});
  const uint64_t fingerprint = TokenFile::Open(dir_.File("a"))->Fingerprint();
  const auto fingerprint_of = [&](const std::vector<int64_t>& ids, const MegatronIndex& index) {
    WriteBytes(dir_.File("b.bin"), Ids(ids, 2));
    WriteBytes(dir_.File("b.idx"), index.Bytes());
    return TokenFile::Open(dir_.File("b"))->Fingerprint();
  };
  MegatronIndex other = SmallIndex(2);
  other.boundaries = {0, 1, 3, 3};

  EXPECT_EQ(fingerprint_of({7, 40000, 65535, 0, 258}, SmallIndex(2)), fingerprint);
  EXPECT_NE(fingerprint_of({7, 40000, 65535, 0, 259}, SmallIndex(2)), fingerprint);
  EXPECT_NE(fingerprint_of({7, 40000, 65535, 0, 258}, other), fingerprint);
}

TEST_F(TokenFileTest, FingerprintSeesEveryIdOfASmallFileAndBothEndsOfAnyFile) {
  // Up to 16 blocks of 8192 ids are read, so that the first file is read whole and the second not.
  for (const int64_t tokens : {int64_t{131072}, int64_t{300007}}) {
    std::vector<int64_t> ids(static_cast<size_t>(tokens), 3);
    WriteBytes(dir_.File("a.bin"), LlmCBytes(20240520, 1, tokens, Ids(ids, 2)));
    const uint64_t fingerprint = TokenFile::Open(dir_.File("a.bin"))->Fingerprint();
    const int64_t distance = tokens == 131072 ? 1021 : tokens - 1;
    for (int64_t i = 0; i < tokens; i += distance) {
      ids[static_cast<size_t>(i)] = 4;
      WriteBytes(dir_.File("b.bin"), LlmCBytes(20240520, 1, tokens, Ids(ids, 2)));
      EXPECT_NE(TokenFile::Open(dir_.File("b.bin"))->Fingerprint(), fingerprint) << i;
      ids[static_cast<size_t>(i)] = 3;
    }
  }
}

TEST_F(TokenFileTest, ReadsBeyondFourGigatokens) {
  const int64_t part = int64_t{1} << 30;
  const int64_t tokens = 4 * part + 10;
  MegatronIndex index;
  index.lengths = {part, part, part, part, 10};
  index.offsets = {0, 2 * part, 4 * part, 6 * part, 8 * part};
  index.boundaries = {0, 4, 5};
  WriteBytes(dir_.File("a.idx"), index.Bytes());
  WriteBytes(dir_.File("a.bin"), "");
  ASSERT_EQ(truncate(dir_.File("a.bin").c_str(), 2 * tokens), 0);
  std::FILE* bin = std::fopen(dir_.File("a.bin").c_str(), "r+b");
  ASSERT_EQ(fseeko(bin, 2 * (tokens - 1), SEEK_SET), 0);
  std::fputs("\x39\x30", bin);
  std::fclose(bin);

  const auto file = TokenFile::Open(dir_.File("a"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tokens(), tokens);
  EXPECT_EQ(file->DocumentBegin(1), 4 * part);
  EXPECT_THAT(Read(*file, tokens - 2, 2), ElementsAre(0, 12345));
  EXPECT_THAT(Read(*file, tokens - 1 - (int64_t{1} << 32), 1), ElementsAre(0));
}

}  // namespace
}  // namespace panthera
