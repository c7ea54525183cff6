#include "runtime/data/corpus_tokenizer.h"

#include <omp.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/data/corpus_record.h"
#include "runtime/data/token_file.h"
#include "runtime/data/tokenizer_training.h"
#include "tests/runtime/data/sample_text.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::ReadBytes;
using ::panthera::testing::SampleText;
using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;
using ::testing::HasSubstr;

// The documents of a pair, without their last ids.
std::vector<std::string> Documents(const std::string& stem, const Tokenizer& tokenizer) {
  const auto file = TokenFile::Open(stem);
  CHECK_OK(file.status());
  std::vector<std::string> documents;
  for (int64_t d = 0; d < file->documents(); ++d) {
    const int64_t begin = file->DocumentBegin(d);
    std::vector<int32_t> ids(static_cast<size_t>(file->DocumentBegin(d + 1) - begin));
    file->Read(begin, static_cast<int64_t>(ids.size()), ids.data());
    EXPECT_EQ(ids.back(), tokenizer.eos_id());
    ids.pop_back();
    documents.push_back(tokenizer.Decode(ids));
  }
  return documents;
}

class CorpusTokenizerTest : public ::testing::Test {
 protected:
  CorpusTokenizerTest() : bytes_(*OpenTokenizer("bytes")) {}

  std::string File(const std::string& name, const std::string& content) {
    WriteBytes(dir_.File(name), content);
    return dir_.File(name);
  }
  absl::StatusOr<CorpusReport> Tokenize(const DocumentOptions& options,
                                        const Tokenizer& tokenizer) {
    return TokenizeCorpus(
        options, tokenizer, dir_.File("train"),
        options.validation_fraction > 0 ? dir_.File("validation") : "",
        [&](const CorpusProgress& progress) { last_progress_ = progress; }, [] {});
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> bytes_;
  CorpusProgress last_progress_{};
};

TEST_F(CorpusTokenizerTest, WritesDocumentsWithTheirEnds) {
  const std::string lines = "{\"text\":\"one\\n\"}\n{\"text\":\"two\"}\n{\"text\":\"three\"}\n";
  const auto report =
      Tokenize({.inputs = {File("a.jsonl", lines)}, .validation_fraction = 0.4}, *bytes_);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(Documents(dir_.File("train"), *bytes_), (std::vector<std::string>{"one\n", "three"}));
  EXPECT_EQ(Documents(dir_.File("validation"), *bytes_), (std::vector<std::string>{"two"}));
  EXPECT_EQ(report->training.documents, 2);
  EXPECT_EQ(report->training.tokens, 4 + 5 + 2);
  EXPECT_EQ(report->training.bytes, 9);
  EXPECT_EQ(report->training.counts['e'], 3);
  EXPECT_EQ(report->training.counts[256], 2);
  EXPECT_EQ(report->validation.documents, 1);
  EXPECT_EQ(report->validation.tokens, 4);
  EXPECT_EQ(last_progress_.bytes_read, last_progress_.bytes_total);
  EXPECT_EQ(last_progress_.tokens, 15);
}

TEST_F(CorpusTokenizerTest, ALongDocumentIsTokenizedAsIfWholeForAnyNumberOfThreads) {
  TokenizerTrainingOptions training;
  training.documents.inputs = {File("text", SampleText())};
  training.vocab_size = 700;
  auto model = TrainSentencePiece(training);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto tokenizer = TokenizerFromBytes("test", *std::move(model));
  ASSERT_TRUE(tokenizer.ok());

  // Lines can be encoded one by one, so the ids of the whole are those of its parts.
  const std::string part = SampleText() + "\n";
  const std::vector<int32_t> part_ids = (*tokenizer)->Encode(part);
  std::string text;
  std::vector<int32_t> expected;
  while (text.size() < (3U << 20)) {
    text += part;
    expected.insert(expected.end(), part_ids.begin(), part_ids.end());
  }
  expected.push_back((*tokenizer)->eos_id());
  const int threads = omp_get_max_threads();
  for (const int count : {1, 3}) {
    omp_set_num_threads(count);
    ASSERT_TRUE(Tokenize({.inputs = {File("long", text)}}, **tokenizer).ok());
    const auto file = TokenFile::Open(dir_.File("train"));
    ASSERT_TRUE(file.ok()) << file.status();
    std::vector<int32_t> ids(static_cast<size_t>(file->tokens()));
    file->Read(0, file->tokens(), ids.data());
    EXPECT_EQ(file->documents(), 1);
    EXPECT_TRUE(ids == expected) << count;
  }
  omp_set_num_threads(threads);
}

TEST_F(CorpusTokenizerTest, AnErrorLeavesNoFiles) {
  const auto report = Tokenize({.inputs = {File("a", "fine"), File("b", "\xFF")}}, *bytes_);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("not valid UTF-8"));
  for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
    EXPECT_THAT(entry.path().filename().string(), ::testing::AnyOf("a", "b"));
  }
}

TEST_F(CorpusTokenizerTest, RefusesPartsWithoutDocuments) {
  EXPECT_THAT(std::string(Tokenize({.inputs = {File("a", "")}}, *bytes_).status().message()),
              HasSubstr("no text to train on"));
  const auto report = Tokenize(
      {.inputs = {File("a.jsonl", "{\"text\":\"x\"}\n")}, .validation_fraction = 0.1}, *bytes_);
  EXPECT_THAT(std::string(report.status().message()),
              HasSubstr("no document falls to validation: 1 documents"));
}

TEST(UnigramEntropyTest, IsThatOfTheDistribution) {
  EXPECT_DOUBLE_EQ(UnigramEntropy({5, 5, 0, 5, 5}), std::log(4.0));
  EXPECT_DOUBLE_EQ(UnigramEntropy({7}), 0);
  EXPECT_DOUBLE_EQ(UnigramEntropy({1, 3}), 0.25 * std::log(4.0) + 0.75 * std::log(4.0 / 3.0));
}

TEST_F(CorpusTokenizerTest, ARecordIsFoundOnlyByItsOwnRecipe) {
  DocumentOptions options{.inputs = {File("a", "text")}};
  const auto report = Tokenize(options, *bytes_);
  ASSERT_TRUE(report.ok());
  const std::string recipe = CorpusRecipe(options, "bytes", {"out"});
  const std::string path = dir_.File("train.json");
  EXPECT_FALSE(ReadCorpusRecord(path, recipe).ok());
  ASSERT_TRUE(WriteCorpusRecord(path, recipe, *bytes_, *report, "a summary").ok());
  EXPECT_EQ(*ReadCorpusRecord(path, CorpusRecipe(options, "bytes", {"out"})), "a summary");

  EXPECT_FALSE(ReadCorpusRecord(path, CorpusRecipe(options, "other", {"out"})).ok());
  EXPECT_FALSE(ReadCorpusRecord(path, CorpusRecipe(options, "bytes", {"other"})).ok());
  DocumentOptions changed = options;
  changed.separator = "|";
  EXPECT_FALSE(ReadCorpusRecord(path, CorpusRecipe(changed, "bytes", {"out"})).ok());
  File("a", "another text");
  EXPECT_FALSE(ReadCorpusRecord(path, CorpusRecipe(options, "bytes", {"out"})).ok());
  WriteBytes(path, "no json");
  EXPECT_FALSE(ReadCorpusRecord(path, recipe).ok());
}

}  // namespace
}  // namespace panthera
