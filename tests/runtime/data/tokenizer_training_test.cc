#include "runtime/data/tokenizer_training.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/data/sentencepiece_model.h"
#include "tests/runtime/data/sample_text.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::SampleText;
using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;
using ::testing::HasSubstr;

class TokenizerTrainingTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::string> Train(const std::string& text, int64_t vocab_size) {
    WriteBytes(dir_.File("text"), text);
    TokenizerTrainingOptions options;
    options.documents.inputs = {dir_.File("text")};
    options.vocab_size = vocab_size;
    options.sample_bytes = sample_bytes_;
    return TrainSentencePiece(options);
  }

  std::unique_ptr<SentencePieceModel> TrainModel(const std::string& text, int64_t vocab_size) {
    const absl::StatusOr<std::string> bytes = Train(text, vocab_size);
    CHECK_OK(bytes.status());
    std::string error;
    return SentencePieceModel::FromBytes(*bytes, error);
  }

  TempDir dir_;
  int64_t sample_bytes_ = 1 << 30;
};

TEST_F(TokenizerTrainingTest, HasLlamasSpecialPiecesAndBytes) {
  const auto model = TrainModel(SampleText(), 700);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->vocab_size(), 700);
  EXPECT_EQ(model->unk_id(), 0);
  EXPECT_EQ(model->bos_id(), 1);
  EXPECT_EQ(model->eos_id(), 2);
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(model->BytePiece(static_cast<unsigned char>(byte)), 3 + byte);
  }
}

TEST_F(TokenizerTrainingTest, NoPieceHoldsTwoDigitsOrAControlCharacter) {
  // Lines that end as on Windows, beside the tabs of the sample.
  std::string text = SampleText();
  for (size_t i = text.find('\n'); i != std::string::npos; i = text.find('\n', i + 2)) {
    text.insert(i, 1, '\r');
  }
  const auto model = TrainModel(text, 700);
  ASSERT_NE(model, nullptr);
  for (int32_t id = 3 + 256; id < model->vocab_size(); ++id) {
    int digits = 0;
    for (const char c : model->Piece(id)) {
      digits += c >= '0' && c <= '9' ? 1 : 0;
      EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20) << model->Piece(id);
    }
    EXPECT_LE(digits, 1) << model->Piece(id);
  }
}

TEST_F(TokenizerTrainingTest, GivesTheSameModelForTheSameText) {
  sample_bytes_ = 20000;
  const auto first = Train(SampleText(), 700);
  const auto second = Train(SampleText(), 700);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(*first == *second);
}

TEST_F(TokenizerTrainingTest, ManyCharactersLeaveRoomForOthers) {
  // 3000 different characters for 441 pieces.
  std::string text = SampleText();
  for (unsigned code = 0x4E00; code < 0x4E00 + 3000; ++code) {
    text += {static_cast<char>(0xE0 | (code >> 12)), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
             static_cast<char>(0x80 | (code & 0x3F))};
    text += code % 10 == 0 ? "\n" : "";
  }
  const auto model = TrainModel(text, 700);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->vocab_size(), 700);
}

TEST_F(TokenizerTrainingTest, LearnsFromTheTrainingPartOnly) {
  // The last half is another alphabet.
  std::string text = SampleText();
  text += std::string(text.size(), 'Q');
  WriteBytes(dir_.File("text"), text);
  TokenizerTrainingOptions options;
  options.documents.inputs = {dir_.File("text")};
  options.documents.validation_fraction = 0.5;
  options.vocab_size = 700;
  const auto bytes = TrainSentencePiece(options);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  std::string error;
  const auto model = SentencePieceModel::FromBytes(*bytes, error);
  ASSERT_NE(model, nullptr);
  for (int32_t id = 3 + 256; id < model->vocab_size(); ++id) {
    EXPECT_EQ(model->Piece(id).find("QQ"), std::string::npos);
  }
}

TEST_F(TokenizerTrainingTest, SaysHowManyPiecesATextYields) {
  const auto model = Train("a short text\n", 700);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("the text yields only"));
}

TEST_F(TokenizerTrainingTest, RefusesAVocabularyOfBytesOnly) {
  EXPECT_THAT(std::string(Train(SampleText(), 300).status().message()), HasSubstr("at least 518"));
}

TEST_F(TokenizerTrainingTest, RefusesNoText) {
  EXPECT_THAT(std::string(Train("\n\n", 700).status().message()), HasSubstr("there is no text"));
}

}  // namespace
}  // namespace panthera
