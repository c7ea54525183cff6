#include "runtime/data/tokenizer.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/data/sentencepiece_model.h"
#include "runtime/data/text_encoder.h"
#include "runtime/data/tokenizer_training.h"
#include "tests/runtime/data/sample_text.h"
#include "tests/runtime/data/token_bytes.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::panthera::testing::SampleText;
using ::panthera::testing::TempDir;
using ::panthera::testing::WriteBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kHardTexts[] = {
    "",
    " ",
    "\n",
    "   ",
    " a",
    "a ",
    "hello  world   three    four",
    "\n\n\na\n \n  b\r\n\tc\t\td",
    "\xE4\xBD\xA0\xE5\xA5\xBD\xEF\xBC\x8C\xE4\xB8\x96\xE7\x95\x8C\xE3\x80\x82",
    // A family of four, joined by zero-width joiners.
    "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xF0\x9F\x98\x80",
    // e with a combining accent, no-break space, ideographic space, zero-width no-break space.
    "e\xCC\x81 \xC2\xA0 \xE3\x80\x80 \xEF\xBB\xBF",
    // The characters that SentencePiece uses for itself.
    "\xE2\x96\x81",
    "a\xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81 b\xE2\x96\x85\xE2\x81\x87",
    "</s> <s> <unk> <0x0A> 12345 3.14",
    std::string("nul \0 inside", 12),
    "\xF4\x8F\xBF\xBF\xEF\xBF\xBF\xEF\xBF\xBD",
};

// The content of a model that is trained on the sample text with the given flags.
std::string TrainPlain(const std::vector<std::pair<std::string, std::string>>& flags) {
  std::string error;
  bool given = false;
  const std::string text = SampleText();
  size_t position = 0;
  std::string model = TrainSentencePieceModel(
      flags,
      [&](std::string& sentence) {
        given = position < text.size();
        const size_t end = std::min(text.find('\n', position), text.size());
        sentence = given ? text.substr(position, end - position) : "";
        std::replace(sentence.begin(), sentence.end(), '\t', ' ');
        position = end + 1;
        return given;
      },
      error);
  CHECK(!model.empty()) << error;
  return model;
}

// Training takes a moment, so all tests share the models.
class SentencePieceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    TempDir dir;
    WriteBytes(dir.File("text"), SampleText());
    TokenizerTrainingOptions options;
    options.documents.inputs = {dir.File("text")};
    options.vocab_size = 700;
    auto model = TrainSentencePiece(options);
    CHECK_OK(model.status());
    model_bytes_ = new std::string(*std::move(model));
    // With a space before every text, as Llama's own model has it.
    prefix_model_bytes_ = new std::string(TrainPlain({{"model_type", "bpe"},
                                                      {"vocab_size", "700"},
                                                      {"byte_fallback", "true"},
                                                      {"normalization_rule_name", "identity"},
                                                      {"remove_extra_whitespaces", "false"},
                                                      {"minloglevel", "2"}}));
  }
  static void TearDownTestSuite() {
    delete model_bytes_;
    delete prefix_model_bytes_;
  }

  static std::unique_ptr<Tokenizer> Open(const std::string& bytes) {
    auto tokenizer = TokenizerFromBytes("test.model", bytes);
    CHECK_OK(tokenizer.status());
    return *std::move(tokenizer);
  }

  static std::string* model_bytes_;
  static std::string* prefix_model_bytes_;
};
std::string* SentencePieceTest::model_bytes_ = nullptr;
std::string* SentencePieceTest::prefix_model_bytes_ = nullptr;

TEST(ByteTokenizerTest, IdsAreTheBytes) {
  const auto tokenizer = OpenTokenizer("bytes");
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->vocab_size(), 257);
  EXPECT_EQ((*tokenizer)->eos_id(), 256);
  EXPECT_THAT((*tokenizer)->Encode("a\xFF\n"), ElementsAre(97, 255, 10));
  EXPECT_EQ((*tokenizer)->Decode({97, 256, 255, 10}), "a\xFF\n");
  EXPECT_EQ((*tokenizer)->fingerprint(), "bytes");
}

TEST(ByteTokenizerTest, RoundTripsAnything) {
  const auto tokenizer = OpenTokenizer("bytes");
  ASSERT_TRUE(tokenizer.ok());
  for (const std::string& text : kHardTexts) {
    EXPECT_EQ((*tokenizer)->Decode((*tokenizer)->Encode(text)), text);
  }
}

TEST(ByteTokenizerTest, HasNoHuggingFaceFiles) {
  EXPECT_THAT(HuggingFaceTokenizerFiles(**OpenTokenizer("bytes")), IsEmpty());
}

TEST(OpenTokenizerTest, NamesWhatCannotBeOpened) {
  TempDir dir;
  EXPECT_THAT(std::string(OpenTokenizer("").status().message()), HasSubstr("no tokenizer"));
  EXPECT_THAT(std::string(OpenTokenizer(dir.File("x")).status().message()),
              HasSubstr("cannot open " + dir.File("x")));
  WriteBytes(dir.File("x"), "this is no model");
  EXPECT_THAT(std::string(OpenTokenizer(dir.File("x")).status().message()),
              HasSubstr(dir.File("x") + " is not a SentencePiece model"));
}

TEST_F(SentencePieceTest, RoundTripsHardTexts) {
  const auto tokenizer = Open(*model_bytes_);
  for (const std::string& text : kHardTexts) {
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
  EXPECT_TRUE(tokenizer->Decode(tokenizer->Encode(SampleText())) == SampleText());
}

TEST_F(SentencePieceTest, RoundTripsRandomCharacters) {
  const auto tokenizer = Open(*model_bytes_);
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) {
      const std::string& other = kHardTexts[random() % std::size(kHardTexts)];
      text += random() % 2 == 0 ? std::string(1, static_cast<char>(random() % 128)) : other;
    }
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
  }
}

TEST_F(SentencePieceTest, NeverGivesSpecialIds) {
  const auto tokenizer = Open(*model_bytes_);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  for (const std::string& text : kHardTexts) {
    for (const int32_t id : tokenizer->Encode(text)) {
      EXPECT_GE(id, 3) << text;
      EXPECT_LT(id, tokenizer->vocab_size());
    }
  }
}

TEST_F(SentencePieceTest, ANewlineIsItsBytePiece) {
  EXPECT_THAT(Open(*model_bytes_)->Encode("\n\n"), ElementsAre(3 + 10, 3 + 10));
}

TEST_F(SentencePieceTest, TextMayBeCutWhereTheRulesSay) {
  const std::string text = SampleText().substr(0, 1500);
  for (const std::string* model : {model_bytes_, prefix_model_bytes_}) {
    const auto tokenizer = Open(*model);
    const CutRules rules = tokenizer->cut_rules();
    EXPECT_TRUE(rules.after_newline);
    EXPECT_TRUE(rules.before_spaces);
    const std::vector<int32_t> whole = tokenizer->Encode(text);
    for (size_t cut = 1; cut < text.size(); ++cut) {
      if (text[cut - 1] != '\n' && (text[cut] != ' ' || text[cut - 1] == ' ')) {
        continue;
      }
      std::vector<int32_t> parts = tokenizer->Encode(text.substr(0, cut));
      tokenizer->Encode(text.substr(cut), TextStart::kContinuation, parts);
      ASSERT_EQ(parts, whole) << cut;
    }
  }
}

TEST_F(SentencePieceTest, AModelWhosePiecesCrossTheCutsHasNoSuchRules) {
  const auto tokenizer = Open(TrainPlain({{"model_type", "bpe"},
                                          {"vocab_size", "700"},
                                          {"byte_fallback", "true"},
                                          {"normalization_rule_name", "identity"},
                                          {"remove_extra_whitespaces", "false"},
                                          {"user_defined_symbols", "\n\n,a\xE2\x96\x81to"},
                                          {"minloglevel", "2"}}));
  EXPECT_FALSE(tokenizer->cut_rules().after_newline);
  EXPECT_FALSE(tokenizer->cut_rules().before_spaces);
}

TEST_F(SentencePieceTest, AModelThatNormalizesSpacesAwayHasNoCutRules) {
  const auto tokenizer = Open(TrainPlain({{"model_type", "bpe"},
                                          {"vocab_size", "700"},
                                          {"byte_fallback", "true"},
                                          {"minloglevel", "2"}}));
  EXPECT_FALSE(tokenizer->cut_rules().after_newline);
  EXPECT_FALSE(tokenizer->cut_rules().before_spaces);
}

TEST_F(SentencePieceTest, TheWordCacheGivesTheSameIds) {
  const std::string long_word(500, 'k');
  std::vector<std::string> models = {*model_bytes_, *prefix_model_bytes_};
  // Models whose lines, or whose words, may not be encoded one by one.
  for (const char* symbol : {"\n\n", "a\xE2\x96\x81to"}) {
    models.push_back(TrainPlain({{"model_type", "bpe"},
                                 {"vocab_size", "700"},
                                 {"byte_fallback", "true"},
                                 {"normalization_rule_name", "identity"},
                                 {"remove_extra_whitespaces", "false"},
                                 {"add_dummy_prefix", "false"},
                                 {"user_defined_symbols", symbol},
                                 {"minloglevel", "2"}}));
  }
  for (const std::string& model : models) {
    const auto tokenizer = Open(model);
    TextEncoder encoder(*tokenizer);
    std::vector<std::string> texts(std::begin(kHardTexts), std::end(kHardTexts));
    texts.push_back(SampleText());
    texts.push_back("ba to ka\n\n\nka to");
    texts.push_back(long_word + " " + long_word + "\n  " + long_word);
    // Twice, so that remembered words are used.
    for (int round = 0; round < 2; ++round) {
      for (const std::string& text : texts) {
        for (const TextStart start : {TextStart::kDocument, TextStart::kContinuation}) {
          std::vector<int32_t> expected = {-1};
          tokenizer->Encode(text, start, expected);
          std::vector<int32_t> ids = {-1};
          encoder.Encode(text, start, ids);
          ASSERT_EQ(ids, expected) << text.substr(0, 50);
        }
      }
    }
  }
}

TEST_F(SentencePieceTest, FingerprintsTellModelsApart) {
  const auto a = Open(*model_bytes_);
  const auto b = Open(*prefix_model_bytes_);
  EXPECT_THAT(a->fingerprint(), HasSubstr("sentencepiece-700-"));
  EXPECT_EQ(a->fingerprint(), Open(*model_bytes_)->fingerprint());
  EXPECT_NE(a->fingerprint(), b->fingerprint());
}

TEST_F(SentencePieceTest, HuggingFaceFilesDescribeTheModel) {
  for (const std::string* model : {model_bytes_, prefix_model_bytes_}) {
    const std::vector<TokenizerFile> files = HuggingFaceTokenizerFiles(*Open(*model));
    ASSERT_EQ(files.size(), 3U);
    EXPECT_EQ(files[0].name, "tokenizer.model");
    EXPECT_TRUE(files[0].contents == *model);
    EXPECT_EQ(files[1].name, "special_tokens_map.json");
    EXPECT_EQ(nlohmann::json::parse(files[1].contents)["eos_token"], "</s>");
    EXPECT_EQ(files[2].name, "tokenizer_config.json");
    const nlohmann::json config = nlohmann::json::parse(files[2].contents);
    EXPECT_EQ(config["tokenizer_class"], "LlamaTokenizer");
    EXPECT_EQ(config["add_bos_token"], false);
    EXPECT_EQ(config["add_prefix_space"], model == prefix_model_bytes_);
    EXPECT_EQ(config["legacy"], false);
  }
}

}  // namespace
}  // namespace panthera
