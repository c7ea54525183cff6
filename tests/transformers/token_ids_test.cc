// AutoTokenizer of Hugging Face transformers, opened on a checkpoint directory, gives the ids of
// the tokenizer that the run was trained with.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "launcher/exit_codes.h"
#include "launcher/training_run.h"
#include "runtime/data/sentencepiece_model.h"
#include "runtime/data/tokenizer_training.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/transformers/python_script.h"

namespace panthera {
namespace {

using Json = nlohmann::json;
using testing::RankWorld;
using testing::RunPythonScript;
using testing::RunRanks;
using testing::ScriptResult;
using testing::ScriptVerdict;
using testing::TempDir;
using testing::TinyRun;

constexpr int64_t kVocabulary = 560;

const std::string kTexts[] = {
    "",
    " ",
    "a",
    " a",
    "a ",
    "the river and the mountain",
    "  two  spaces   three    four and more          ",
    "\n",
    "\n\n  indented\n\tby a tab\r\n \n",
    // "Hello, world." and a sentence whose first characters the training text has.
    "\xE4\xBD\xA0\xE5\xA5\xBD\xEF\xBC\x8C\xE4\xB8\x96\xE7\x95\x8C\xE3\x80\x82",
    "\xE5\xB1\xB1\xE6\xB0\xB4\xE4\xB9\x8B\xE9\x97\xB4 river \xE9\xBE\x98",
    // A face; a family joined by zero-width joiners; a flag.
    "\xF0\x9F\x98\x80\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 \xF0\x9F\x87\xA8\xF0\x9F\x87\xB3",
    // A combining accent, no-break space, ideographic space, ligature: nothing is normalized.
    "e\xCC\x81 \xC2\xA0 \xE3\x80\x80 \xEF\xAC\x81",
    "12345 3.14159, 2024-01-31; 007",
    "int main() {\n    return 0;\n}\n",
    "<0x0A> is no line end",
};

// Words, numbers, indented lines and some Chinese, with enough pairs for the vocabulary.
std::string TrainingText() {
  const std::string_view parts[] = {"river",
                                    "mountain",
                                    "between",
                                    "return",
                                    "stone",
                                    "and the",
                                    "\xE5\xB1\xB1\xE6\xB0\xB4",
                                    "\xE4\xB9\x8B\xE9\x97\xB4",
                                    "    ",
                                    "42",
                                    "lighthouse keeper",
                                    "wonderful",
                                    "1859",
                                    "questions"};
  std::string text;
  uint32_t state = 1;
  while (text.size() < 40000) {
    state = state * 1664525 + 1013904223;
    text += parts[(state >> 16) % std::size(parts)];
    // Invented words make many different pairs.
    text += ' ';
    for (uint32_t letters = state >> 29; letters > 0; --letters) {
      state = state * 1664525 + 1013904223;
      text += static_cast<char>('a' + (state >> 16) % 26);
    }
    text += (state >> 8) % 9 == 0 ? '\n' : ' ';
  }
  return text;
}

// As Panthera trains it: no space before a text.
std::string TrainOwn() {
  TempDir dir;
  std::ofstream(dir.File("text")) << TrainingText();
  TokenizerTrainingOptions options;
  options.documents.inputs = {dir.File("text")};
  options.vocab_size = kVocabulary;
  absl::StatusOr<std::string> model = TrainSentencePiece(options);
  CHECK_OK(model.status());
  return *std::move(model);
}

// Brought along, and like Llama's own: a space before every text.
std::string TrainLikeLlama() {
  const std::string text = TrainingText();
  size_t position = 0;
  std::string error;
  std::string model = TrainSentencePieceModel(
      {{"model_type", "bpe"},
       {"vocab_size", std::to_string(kVocabulary)},
       {"byte_fallback", "true"},
       {"split_digits", "true"},
       {"allow_whitespace_only_pieces", "true"},
       {"normalization_rule_name", "identity"},
       {"remove_extra_whitespaces", "false"},
       {"minloglevel", "2"}},
      [&](std::string& line) {
        if (position >= text.size()) {
          return false;
        }
        const size_t end = std::min(text.find('\n', position), text.size());
        line = text.substr(position, end - position);
        position = end + 1;
        return true;
      },
      error);
  CHECK(!model.empty()) << error;
  return model;
}

// Trains a model for a step on one rank with the tokenizer; returns the checkpoint's directory.
std::string TrainWith(TinyRun& run, const std::string& tokenizer_file) {
  run.options.data.tokenizer = tokenizer_file;
  run.options.model.vocab_size = kVocabulary;
  RunRanks(1, [&](RankWorld& rank_world) {
    World world = testing::WorldOf(rank_world);
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(1), absl::OkStatus());
    auto training = TrainingRun::Open(options, StartMode::kResume, world);
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit_code = (*training)->Run();
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    ASSERT_EQ(*exit_code, kExitDone);
  });
  return CheckpointDirectory(run.options.train.run_dir, run.options.train.steps);
}

// The file that compare_token_ids.py reads.
Json ExpectedIds(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  Json expected = {{"end", tokenizer.eos_id()}};
  for (const std::string& text : texts) {
    expected["texts"].push_back(text);
    expected["ids"].push_back(tokenizer.Encode(text));
  }
  return expected;
}

struct Variant {
  const char* name;
  std::string (*train)();
  // Before a text that begins with a space, transformers puts none.
  bool may_begin_with_space;
};

class TransformersTokenIdsTest : public ::testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(
    Tokenizers, TransformersTokenIdsTest,
    ::testing::Values(
        Variant{.name = "Own", .train = TrainOwn, .may_begin_with_space = true},
        Variant{.name = "LikeLlama", .train = TrainLikeLlama, .may_begin_with_space = false}),
    [](const auto& test) { return test.param.name; });

TEST_P(TransformersTokenIdsTest, CheckpointGivesTheSameTokenIds) {
  TempDir dir;
  std::ofstream(dir.File("trained.model"), std::ios::binary) << GetParam().train();
  TinyRun run(1);
  run.options.optim.schedule.warmup_steps = 0;
  const std::string checkpoint = TrainWith(run, dir.File("trained.model"));
  ASSERT_FALSE(HasFatalFailure());
  const auto tokenizer = OpenTokenizer(dir.File("trained.model"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<std::string> texts = {TrainingText().substr(0, 5000)};
  for (const std::string& text : kTexts) {
    if (GetParam().may_begin_with_space || text.substr(0, 1) != " ") {
      texts.push_back(text);
    }
  }
  std::ofstream(dir.File("expected.json")) << ExpectedIds(**tokenizer, texts);

  const ScriptResult result =
      RunPythonScript("compare_token_ids.py", {checkpoint, dir.File("expected.json")});

  std::cout << result.output;
  if (result.verdict == ScriptVerdict::kCannotRun) {
    GTEST_SKIP() << result.output;
  }
  EXPECT_EQ(result.verdict, ScriptVerdict::kEqual) << result.output;
}

}  // namespace
}  // namespace panthera
