#include "launcher/run_state.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

RunState Example() {
  return {.step = 500,
          .sequences = 16000,
          .tokens = 8192000,
          .data_seed = 7,
          .data_ranks = 4,
          .tensor_ranks = 2,
          .data = {.files = {{"data.train[0]", "data/a.bin", 1000, 0xABCDEF0123456789},
                             {"data.train[1]", "data/b.bin", 2000, 2}},
                   .tokenizer = "bytes"}};
}

TEST(RunStateTest, ReadsBackWhatItWrites) {
  const absl::StatusOr<RunState> read = ParseRunState(RunStateJson(Example()));

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->step, 500);
  EXPECT_EQ(read->sequences, 16000);
  EXPECT_EQ(read->tokens, 8192000);
  EXPECT_EQ(read->data_seed, 7);
  EXPECT_EQ(read->data_ranks, 4);
  EXPECT_EQ(read->tensor_ranks, 2);
  ASSERT_EQ(read->data.files.size(), 2U);
  EXPECT_EQ(read->data.files[0].key, "data.train[0]");
  EXPECT_EQ(read->data.files[0].path, "data/a.bin");
  EXPECT_EQ(read->data.files[0].tokens, 1000);
  EXPECT_EQ(read->data.files[0].fingerprint, 0xABCDEF0123456789U);
  EXPECT_EQ(read->data.tokenizer, "bytes");
}

TEST(RunStateTest, AStateWithoutARecordOfTheDataIsReadAndEqualToAny) {
  const absl::StatusOr<RunState> read =
      ParseRunState("{\"step\":5,\"sequences\":60,\"tokens\":960,\"data_seed\":1}\n");

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->step, 5);
  EXPECT_EQ(CheckSameData(read->data, Example().data), absl::OkStatus());
}

TEST(RunStateTest, TextThatIsNoStateIsRefused) {
  for (const char* text :
       {"", "[]", "{\"step\":1}", "{\"step\":\"x\"}",
        R"({"step":5,"sequences":60,"tokens":960,"data_seed":1,"data_ranks":1e300})",
        R"({"step":5,"sequences":60,"tokens":960,"data_seed":1,"tensor_ranks":1.5})"}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseRunState(text).status())) << text;
  }
}

TEST(RunStateTest, AFileThatChangedIsNamed) {
  const DataRecord before = Example().data;
  const auto refusal = [&](const DataRecord& now) {
    const absl::Status status = CheckSameData(before, now);
    EXPECT_TRUE(absl::IsFailedPrecondition(status));
    return std::string(status.message());
  };
  EXPECT_EQ(CheckSameData(before, before), absl::OkStatus());

  DataRecord now = before;
  now.files[1].tokens = 2100;
  EXPECT_THAT(refusal(now), HasSubstr("from data.train[1]: data/b.bin (2000 tokens), which is now "
                                      "data.train[1]: data/b.bin (2100 tokens)"));
  now = before;
  now.files[0].fingerprint ^= 1;
  EXPECT_THAT(refusal(now), AllOf(HasSubstr("data.train[0]: data/a.bin (1000 tokens)"),
                                  HasSubstr("another file of as many tokens")));
  now = before;
  now.files.push_back({"data.train[1]", "data/c.bin", 10, 3});
  EXPECT_THAT(refusal(now), HasSubstr("from 2 token files and now has 3; new is data.train[1]: "
                                      "data/c.bin (10 tokens)"));
  now = before;
  now.files.pop_back();
  EXPECT_THAT(refusal(now), HasSubstr("missing is data.train[1]: data/b.bin"));
  now = before;
  now.tokenizer = "sentencepiece 100 ab";
  EXPECT_THAT(refusal(now), HasSubstr("data.tokenizer"));
}

TEST(RunStateTest, AFileThatOnlyMovedIsTheSame) {
  DataRecord now = Example().data;
  now.files[0].path = "/elsewhere/a.bin";
  EXPECT_EQ(CheckSameData(Example().data, now), absl::OkStatus());
}

TEST(RunStateTest, DescribesEveryFileOfEverySource) {
  testing::TempDir dir;
  testing::WritePair(dir.File("a_1"), std::vector<int64_t>(1000, 5));
  testing::WritePair(dir.File("a_2"), std::vector<int64_t>(2000, 5));
  testing::WritePair(dir.File("b"), std::vector<int64_t>(1000, 6));
  const std::vector<DataSource> sources = {{.path = dir.File("a_*")}, {.path = dir.File("b")}};
  const absl::StatusOr<DataLoader> data =
      DataLoader::Open(sources, {.sequence_length = 8, .vocab_size = 1000}, /*seed=*/1);
  ASSERT_TRUE(data.ok()) << data.status();

  const DataRecord record = DescribeData(*data, nullptr);

  ASSERT_EQ(record.files.size(), 3U);
  EXPECT_EQ(record.files[0].key, "data.train[0]");
  EXPECT_EQ(record.files[1].key, "data.train[0]");
  EXPECT_EQ(record.files[2].key, "data.train[1]");
  EXPECT_EQ(record.files[1].path, dir.File("a_2.bin"));
  EXPECT_EQ(record.files[1].tokens, 2000);
  EXPECT_NE(record.files[0].fingerprint, record.files[2].fingerprint);
  EXPECT_EQ(record.tokenizer, "");
}

}  // namespace
}  // namespace panthera
