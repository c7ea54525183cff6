#include "runtime/data/megatron_writer.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::Ids;
using ::panthera::testing::MegatronIndex;
using ::panthera::testing::ReadBytes;
using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;

void Append(MegatronWriter& writer, const std::vector<int32_t>& ids) {
  ASSERT_TRUE(writer.Append(ids).ok());
}

// Documents [1 2 3] (appended in two parts), [], [4 5].
void WriteThreeDocuments(MegatronWriter& writer) {
  Append(writer, {1, 2});
  Append(writer, {3});
  ASSERT_TRUE(writer.EndDocument().ok());
  ASSERT_TRUE(writer.EndDocument().ok());
  Append(writer, {4, 5});
  ASSERT_TRUE(writer.EndDocument().ok());
}

class MegatronWriterTest : public ::testing::Test {
 protected:
  std::string stem() const { return dir_.File("out"); }
  MegatronWriter Create(int64_t vocab_size) {
    absl::StatusOr<MegatronWriter> writer = MegatronWriter::Create(stem(), vocab_size);
    CHECK_OK(writer.status());
    return *std::move(writer);
  }
  int64_t FilesInDirectory() const {
    const std::filesystem::directory_iterator entries(dir_.path());
    return std::distance(begin(entries), end(entries));
  }

  TempDir dir_;
};

TEST_F(MegatronWriterTest, WritesTheBytesThatMegatronReads) {
  for (const int64_t vocab_size : {int64_t{65499}, int64_t{65500}}) {
    const int id_bytes = vocab_size < 65500 ? 2 : 4;
    MegatronWriter writer = Create(vocab_size);
    WriteThreeDocuments(writer);
    EXPECT_EQ(writer.tokens(), 5);
    EXPECT_EQ(writer.documents(), 3);
    ASSERT_TRUE(writer.Publish().ok());
    MegatronIndex index;
    index.type = id_bytes == 2 ? 8 : 4;
    index.lengths = {3, 0, 2};
    index.offsets = {0, 3 * id_bytes, 3 * id_bytes};
    index.boundaries = {0, 1, 2, 3};
    EXPECT_EQ(ReadBytes(stem() + ".idx"), index.Bytes());
    EXPECT_EQ(ReadBytes(stem() + ".bin"), Ids({1, 2, 3, 4, 5}, id_bytes));
  }
}

TEST_F(MegatronWriterTest, SplitsADocumentThatOneLengthCannotSay) {
  MegatronWriter writer = Create(100);
  writer.set_max_sequence(2);
  Append(writer, {1, 2, 3, 4});
  Append(writer, {5});
  ASSERT_TRUE(writer.EndDocument().ok());
  Append(writer, {6, 7});
  ASSERT_TRUE(writer.Publish().ok());
  MegatronIndex index;
  index.lengths = {2, 2, 1, 2};
  index.offsets = {0, 4, 8, 10};
  index.boundaries = {0, 3, 4};
  EXPECT_EQ(ReadBytes(stem() + ".idx"), index.Bytes());
  const auto file = TokenFile::Open(stem());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->DocumentBegin(1), 5);
}

TEST_F(MegatronWriterTest, NothingAppearsBeforePublishAndNothingElseAfter) {
  MegatronWriter writer = Create(100);
  WriteThreeDocuments(writer);
  EXPECT_FALSE(std::filesystem::exists(stem() + ".bin"));
  EXPECT_FALSE(std::filesystem::exists(stem() + ".idx"));
  ASSERT_TRUE(writer.Publish().ok());
  EXPECT_EQ(FilesInDirectory(), 2);
}

TEST_F(MegatronWriterTest, AnAbandonedWriterKeepsTheOldFilesAndLeavesNoOthers) {
  WriteBytes(stem() + ".bin", "old");
  WriteBytes(stem() + ".idx", "old");
  {
    MegatronWriter writer = Create(100);
    WriteThreeDocuments(writer);
  }
  EXPECT_EQ(ReadBytes(stem() + ".bin"), "old");
  EXPECT_EQ(ReadBytes(stem() + ".idx"), "old");
  EXPECT_EQ(FilesInDirectory(), 2);
}

TEST_F(MegatronWriterTest, ReplacesOlderFiles) {
  WriteBytes(stem() + ".bin", "old");
  WriteBytes(stem() + ".idx", "old");
  MegatronWriter writer = Create(100);
  WriteThreeDocuments(writer);
  ASSERT_TRUE(writer.Publish().ok());
  EXPECT_TRUE(TokenFile::Open(stem()).ok());
}

TEST_F(MegatronWriterTest, NamesAFileThatCannotBeCreated) {
  const auto writer = MegatronWriter::Create(dir_.File("missing/out"), 100);
  EXPECT_NE(std::string(writer.status().message()).find("missing/out.bin"), std::string::npos);
}

TEST_F(MegatronWriterTest, AnIdOutsideTheVocabularyIsABug) {
  MegatronWriter writer = Create(10);
  const std::vector<int32_t> ids = {10};
  EXPECT_DEATH(static_cast<void>(writer.Append(ids)), "10 vs. 10");
}

}  // namespace
}  // namespace panthera
