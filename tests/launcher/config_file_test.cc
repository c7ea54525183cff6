#include "launcher/config_file.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/rank_harness.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// A valid configuration; line 1 is the comment.
constexpr char kValid[] =
    "# minimal\n"
    "[model]\n"
    "vocab_size = 256\n"
    "width = 64\n"
    "layers = 2\n"
    "heads = 2\n"
    "ffn_width = 128\n"
    "sequence_length = 32\n"
    "[train]\n"
    "steps = 10\n"
    "global_batch = 4\n"
    "micro_batch = 2\n"
    "run_dir = \"runs/t\"\n"
    "[[data.train]]\n"
    "path = \"a.bin\"\n";
constexpr int kNextLine = 16;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::string ErrorOf(const std::string& text, const std::vector<std::string>& overrides = {}) {
  RunOptions options;
  return Message(ParseConfig(text, "run.toml", overrides, options));
}

// The options of kValid under `overrides`, which must be right.
RunOptions Overridden(const std::vector<std::string>& overrides) {
  RunOptions options;
  EXPECT_EQ(Message(ParseConfig(kValid, "run.toml", overrides, options)), "");
  return options;
}

TEST(ConfigFileTest, ReadsEveryKindOfField) {
  RunOptions options;
  ASSERT_EQ(Message(ParseConfig(std::string(kValid) +
                                    "weight = 2\n"
                                    "[[data.train]]\n"
                                    "path = \"b.bin\"\n"
                                    "weight = 0.5\n"
                                    "[optim]\n"
                                    "learning_rate = 3e-3\n"
                                    "weights = \"bf16+8\"\n"
                                    "[schedule]\n"
                                    "kind = \"piecewise\"\n"
                                    "points = [{step = 5, factor = 1}, {step = 10, factor = 0}]\n",
                                "run.toml", {}, options)),
            "");
  EXPECT_EQ(options.model.vocab_size, 256);
  EXPECT_EQ(options.model.sequence_length, 32);
  EXPECT_EQ(options.train.run_dir, "runs/t");
  EXPECT_EQ(options.optim.learning_rate, 3e-3);
  EXPECT_EQ(options.optim.weights, WeightStorage::kBf16Plus8);
  EXPECT_EQ(options.optim.schedule.kind, ScheduleKind::kPiecewise);
  ASSERT_EQ(options.optim.schedule.points.size(), 2U);
  EXPECT_EQ(options.optim.schedule.points[1].step, 10);
  EXPECT_EQ(options.optim.schedule.points[1].factor, 0);
  ASSERT_EQ(options.data.train.size(), 2U);
  EXPECT_EQ(options.data.train[0].path, "a.bin");
  EXPECT_EQ(options.data.train[0].weight, 2);  // an integer where a real number is expected
  EXPECT_EQ(options.data.train[1].path, "b.bin");
  EXPECT_EQ(options.data.train[1].weight, 0.5);
}

TEST(ConfigFileTest, KeysThatAreNotThereKeepTheirDefaults) {
  const RunOptions options = Overridden({});
  const RunOptions defaults;
  EXPECT_EQ(options.optim.learning_rate, defaults.optim.learning_rate);
  EXPECT_EQ(options.checkpoint.keep, defaults.checkpoint.keep);
  EXPECT_EQ(options.model.rope_base, defaults.model.rope_base);
  EXPECT_TRUE(options.data.validation.empty());
}

// Each case appends text to kValid, so that its first line is line kNextLine.
struct BadConfig {
  const char* name;
  const char* text;
  const char* error;
};

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsNamedWithFileLineAndRemedy) {
  ASSERT_EQ(kNextLine, std::count(kValid, kValid + sizeof(kValid), '\n') + 1);
  EXPECT_EQ(ErrorOf(std::string(kValid) + GetParam().text), GetParam().error);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfigTest,
    ::testing::Values(
        BadConfig{"MisspeltKey", "[optim]\nlerning_rate = 0.1\n",
                  "run.toml:17: unknown key `optim.lerning_rate`; did you mean `learning_rate`?"},
        BadConfig{"ExchangedLetters", "[log]\nevrey = 1\n",
                  "run.toml:17: unknown key `log.evrey`; did you mean `every`?"},
        BadConfig{"KeyOfAnotherSection", "[optim]\nwarmup_steps = 1\n",
                  "run.toml:17: unknown key `optim.warmup_steps`; did you mean "
                  "`schedule.warmup_steps`?"},
        BadConfig{"KeyUnlikeAnyOther", "[device]\nzzzzzz = 1\n",
                  "run.toml:17: unknown key `device.zzzzzz`; known keys are kind, sharing"},
        BadConfig{"KeyOfAListEntry", "wieght = 1\n",
                  "run.toml:16: unknown key `data.train[0].wieght`; did you mean `weight`?"},
        BadConfig{"MisspeltSection", "[checkpoints]\nevery = 1\n",
                  "run.toml:16: unknown section [checkpoints]; did you mean `checkpoint`?"},
        BadConfig{"SectionUnlikeAnyOther", "\n[qqqqqqqq]\n",
                  "run.toml:17: unknown section [qqqqqqqq]; known sections are model, optim, "
                  "schedule, data, parallel, train, eval, checkpoint, log, device"},
        BadConfig{"SectionInsideASection", "[optim.schedule]\nkind = \"cosine\"\n",
                  "run.toml:16: unknown key `optim.schedule`; known keys are algorithm, "
                  "learning_rate, weight_decay, beta1, beta2, epsilon, clip_norm, accumulate, "
                  "weights, momentum, nonfinite, skip_budget, shrink_ratio, lazy_rows, "
                  "table_optimizer, table_learning_rate, table_weight_decay, table_beta1, "
                  "table_beta2, table_rms, publish"},
        BadConfig{"TextForInteger", "[log]\nevery = \"ten\"\n",
                  "run.toml:17: `log.every` must be an integer; found the string \"ten\""},
        BadConfig{"RealForInteger", "[log]\nevery = 10.0\n",
                  "run.toml:17: `log.every` must be an integer; found the real number 10.0"},
        BadConfig{"BooleanForInteger", "[log]\nevery = true\n",
                  "run.toml:17: `log.every` must be an integer; found true"},
        BadConfig{"TextForReal", "[optim]\nlearning_rate = \"0.1\"\n",
                  "run.toml:17: `optim.learning_rate` must be a number; found the string "
                  "\"0.1\""},
        BadConfig{"ListForReal", "[optim]\nlearning_rate = [0.1]\n",
                  "run.toml:17: `optim.learning_rate` must be a number; found a list"},
        BadConfig{"IntegerForText", "[data]\n\n\ntokenizer = 5\n",
                  "run.toml:19: `data.tokenizer` must be a string in quotes; found the integer 5"},
        BadConfig{"DateForText", "[data]\ntokenizer = 2024-01-01\n",
                  "run.toml:17: `data.tokenizer` must be a string in quotes; found a date or time"},
        BadConfig{"BooleanForChoice", "[optim]\nalgorithm = true\n",
                  "run.toml:17: `optim.algorithm` must be one of \"tiger\", \"lion\", \"adamw\"; "
                  "found true"},
        BadConfig{"MisspeltChoice", "[optim]\nalgorithm = \"tigr\"\n",
                  "run.toml:17: `optim.algorithm` = \"tigr\" is not one of \"tiger\", \"lion\", "
                  "\"adamw\"; did you mean \"tiger\"?"},
        BadConfig{"ChoiceUnlikeAnyOther", "[optim]\nweights = \"int4\"\n",
                  "run.toml:17: `optim.weights` = \"int4\" is not one of \"fp32\", \"bf16+8\", "
                  "\"bf16\", \"bf16+fp32\""},
        BadConfig{"IntegerTooSmall", "[log]\nevery = 0\n",
                  "run.toml:17: `log.every` = 0 is out of range (at least 1)"},
        BadConfig{"IntegerTooLarge", "[parallel]\ntensor = 1025\n",
                  "run.toml:17: `parallel.tensor` = 1025 is out of range (1 to 1024)"},
        BadConfig{"RealTooSmall", "[optim]\nlearning_rate = -1\n",
                  "run.toml:17: `optim.learning_rate` = -1.0 is out of range (0.0 to 100.0)"},
        BadConfig{"RealTooLarge", "[optim]\nbeta1 = 1.5\n",
                  "run.toml:17: `optim.beta1` = 1.5 is out of range (-1.0 to 1.0)"},
        BadConfig{"NotANumber", "[optim]\nclip_norm = nan\n",
                  "run.toml:17: `optim.clip_norm` = nan is out of range (at least 0.0)"},
        BadConfig{"Infinite", "[optim]\nclip_norm = inf\n",
                  "run.toml:17: `optim.clip_norm` = inf is out of range (at least 0.0)"},
        BadConfig{"RangeInsideAList", "[[data.train]]\npath = \"b\"\nweight = 0\n",
                  "run.toml:18: `data.train[1].weight` = 0.0 is out of range (1e-09 to 1e+09)"},
        BadConfig{"TableForAList", "[data.validation]\npath = \"b\"\n",
                  "run.toml:16: `data.validation` must be a list of tables: [[data.validation]]; "
                  "found a table"},
        BadConfig{"TextInAListOfTables", "[data]\nvalidation = [{path = \"a\"}, \"b\"]\n",
                  "run.toml:17: `data.validation[1]` must be a table [[data.validation]]; found "
                  "the string \"b\""},
        BadConfig{"ListForASection", "[[eval]]\nevery = 3\n",
                  "run.toml:16: `eval` must be a table [eval]; found a list"},
        BadConfig{"SeveralMistakesInTheirOrder",
                  "[log]\nevery = 0\n[optim]\nmomentum = \"fp16\"\nbeta = 0.9\n[eval]\nevry = 1\n",
                  "run.toml:17: `log.every` = 0 is out of range (at least 1)\n"
                  "run.toml:19: `optim.momentum` = \"fp16\" is not one of \"fp32\", \"bf16\"\n"
                  "run.toml:20: unknown key `optim.beta`; did you mean `beta1`?\n"
                  "run.toml:22: unknown key `eval.evry`; did you mean `every`?"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(ConfigFileTest, TheEndsOfARangeAreInIt) {
  EXPECT_EQ(Overridden({"log.every=1"}).log.every, 1);
  EXPECT_EQ(Overridden({"parallel.tensor=1024"}).parallel.tensor, 1024);
  EXPECT_EQ(Overridden({"optim.beta1=-1"}).optim.beta1, -1);
  EXPECT_EQ(Overridden({"optim.beta1=1.0"}).optim.beta1, 1);
}

TEST(ConfigFileTest, MissingKeysAreNamedWithTheirMeaning) {
  std::string text = kValid;
  text.erase(text.find("layers = 2\n"), 11);
  EXPECT_EQ(ErrorOf(text),
            "run.toml:2: set `model.layers`, which is missing: transformer blocks (L)");
}

TEST(ConfigFileTest, AMisspeltNameOfARequiredKeyOrSectionIsOneMistake) {
  std::string text = kValid;
  text.replace(text.find("layers = 2"), 6, "layer");
  EXPECT_EQ(ErrorOf(text), "run.toml:5: unknown key `model.layer`; did you mean `layers`?");
  text = kValid;
  text.replace(text.find("[train]"), 7, "[trian]");
  EXPECT_THAT(ErrorOf(text), ::testing::EndsWith("unknown section [trian]; did you mean `train`?"));
  EXPECT_EQ(ErrorOf(text).find('\n'), std::string::npos);
}

TEST(ConfigFileTest, MissingSectionsHaveMissingKeys) {
  const std::string text = std::string(kValid).substr(0, std::string(kValid).find("[train]"));
  EXPECT_EQ(ErrorOf(text),
            "run.toml:1: set `train.steps`, which is missing: optimizer steps of the whole run\n"
            "run.toml:1: set `train.global_batch`, which is missing: sequences per optimizer step, "
            "over all "
            "ranks\n"
            "run.toml:1: set `train.micro_batch`, which is missing: sequences that one "
            "data-parallel rank "
            "computes at a time; the number of micro-steps follows");
}

TEST(ConfigFileTest, ASectionOfTheWrongTypeIsOneMistake) {
  std::string text = kValid;
  text = "train = 3\n" + text.substr(0, text.find("[train]"));
  EXPECT_EQ(ErrorOf(text), "run.toml:1: `train` must be a table [train]; found the integer 3");
}

TEST(ConfigFileTest, KeysOutsideSectionsAreUnknown) {
  EXPECT_EQ(ErrorOf("learning_rate = 1\n" + std::string(kValid)),
            "run.toml:1: unknown key `learning_rate`; did you mean `optim.learning_rate`?");
}

// The parser words these; what matters is the place.
TEST(ConfigFileTest, SyntaxErrorsAreNamedWithTheirLine) {
  EXPECT_THAT(ErrorOf(std::string(kValid) + "[log\n"), StartsWith("run.toml:16: "));
  EXPECT_THAT(ErrorOf(std::string(kValid) + "[log]\nevery = \n"), StartsWith("run.toml:17: "));
  EXPECT_THAT(ErrorOf(std::string(kValid) + "[data]\ntokenizer = 'a\n"),
              StartsWith("run.toml:17: "));
  EXPECT_THAT(ErrorOf("\xff\xfe"), StartsWith("run.toml:1: "));
}

TEST(ConfigFileTest, DuplicatesAreNamedWithTheirLine) {
  EXPECT_THAT(ErrorOf(std::string(kValid) + "[log]\nevery = 1\nevery = 2\n"),
              ::testing::AllOf(StartsWith("run.toml:18: "), HasSubstr("every")));
  EXPECT_THAT(ErrorOf(std::string(kValid) + "[model]\n"),
              ::testing::AllOf(StartsWith("run.toml:16: "), HasSubstr("model")));
}

TEST(ConfigFileTest, OptionsAreUntouchedOnError) {
  RunOptions options;
  options.train.steps = 77;
  EXPECT_FALSE(ParseConfig("[train]\nsteps = 5\n", "run.toml", {}, options).ok());
  EXPECT_EQ(options.train.steps, 77);
}

TEST(ConfigFileTest, ReadingStartsFromTheDefaults) {
  RunOptions options;
  options.log.every = 77;
  options.data.validation.resize(3);
  ASSERT_EQ(Message(ParseConfig(kValid, "run.toml", {}, options)), "");
  EXPECT_EQ(options.log.every, RunOptions().log.every);
  EXPECT_TRUE(options.data.validation.empty());
}

TEST(ConfigFileTest, LoadsFromAFile) {
  const testing::TempDir dir;
  FILE* file = std::fopen(dir.File("a.toml").c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fputs(kValid, file);
  std::fclose(file);
  RunOptions options;
  EXPECT_EQ(Message(LoadConfig(dir.File("a.toml"), {}, options)), "");
  EXPECT_EQ(options.model.width, 64);
}

// U+040F: where the library's own table of white space has no answer.
TEST(ConfigFileTest, ALetterBeyondAsciiOutsideOfQuotesIsAMistake) {
  EXPECT_THAT(ErrorOf("[model]\nwidth = 4 \xD0\x8F\n"), StartsWith("run.toml:2: "));
}

TEST(ConfigFileTest, AFileThatCannotBeReadIsNamed) {
  RunOptions options;
  EXPECT_EQ(
      Message(LoadConfig("no/such.toml", {}, options)),
      "cannot read the configuration no/such.toml: No such file or directory; name a TOML file, "
      "such as one of those in configs/");
  const testing::TempDir dir;
  EXPECT_EQ(Message(LoadConfig(dir.path(), {}, options)),
            "cannot read the configuration " + dir.path() +
                ": Is a directory; name a TOML file, such as one of those in configs/");
}

TEST(OverrideTest, ReplacesAndAddsValues) {
  const RunOptions options = Overridden(
      {"train.steps=20", "optim.learning_rate=2e-3", "log.every=5", "data.tokenizer=\"x y\""});
  EXPECT_EQ(options.train.steps, 20);
  EXPECT_EQ(options.optim.learning_rate, 2e-3);
  EXPECT_EQ(options.log.every, 5);
  EXPECT_EQ(options.data.tokenizer, "x y");
  EXPECT_EQ(options.model.width, 64);
}

TEST(OverrideTest, StringsNeedNoQuotes) {
  EXPECT_EQ(Overridden({"optim.weights=bf16+fp32"}).optim.weights, WeightStorage::kBf16PlusFp32);
  for (const std::string value : {"runs/a b", "7", "1e3", "true", "2024-01-01", "", "a=b", "it's",
                                  "[x", "say \"hi\"", "a\nb", "#1"}) {
    EXPECT_EQ(Overridden({"train.run_dir=" + value}).train.run_dir, value);
  }
}

TEST(OverrideTest, TheLaterOneWins) {
  EXPECT_EQ(Overridden({"log.every=5", "log.every=6"}).log.every, 6);
}

TEST(OverrideTest, SetsOneKeyOfAListEntry) {
  const RunOptions options = Overridden({"data.train[0].path=b.bin", "data.train[0].weight=3"});
  ASSERT_EQ(options.data.train.size(), 1U);
  EXPECT_EQ(options.data.train[0].path, "b.bin");
  EXPECT_EQ(options.data.train[0].weight, 3);
}

TEST(OverrideTest, SetsAWholeList) {
  const RunOptions options =
      Overridden({"data.train=[{path = \"x\"}, {path = \"y\", weight = 2}]"});
  ASSERT_EQ(options.data.train.size(), 2U);
  EXPECT_EQ(options.data.train[1].path, "y");
  EXPECT_TRUE(Overridden({"data.train=[]"}).data.train.empty());
}

TEST(OverrideTest, SuppliesAMissingKey) {
  std::string text = kValid;
  text.erase(text.find("steps = 10\n"), 11);
  RunOptions options;
  const std::vector<std::string> overrides = {"train.steps=9"};
  EXPECT_EQ(Message(ParseConfig(text, "run.toml", overrides, options)), "");
  EXPECT_EQ(options.train.steps, 9);
}

TEST(OverrideTest, ReplacesAWrongValueOfTheFile) {
  RunOptions options;
  const std::vector<std::string> overrides = {"log.every=9"};
  EXPECT_EQ(Message(ParseConfig(std::string(kValid) + "[log]\nevery = \"x\"\n", "run.toml",
                                overrides, options)),
            "");
}

struct BadOverride {
  const char* name;
  const char* text;
  const char* error;
};

class BadOverrideTest : public ::testing::TestWithParam<BadOverride> {};

TEST_P(BadOverrideTest, IsNamedAsItWasWritten) {
  EXPECT_EQ(ErrorOf(kValid, {"log.every=3", GetParam().text}),
            std::string("--set ") + GetParam().text + ": " + GetParam().error);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadOverrideTest,
    ::testing::Values(
        BadOverride{"NoValue", "train.steps",
                    "expected SECTION.KEY=VALUE, such as train.steps=100"},
        BadOverride{"NoKey", "=3", "expected SECTION.KEY=VALUE, such as train.steps=100"},
        BadOverride{"EmptyPart", "train..steps=3",
                    "expected SECTION.KEY=VALUE, such as train.steps=100"},
        BadOverride{"BadIndex", "data.train[x].path=3",
                    "expected SECTION.KEY=VALUE, such as train.steps=100"},
        BadOverride{"IndexWithATail", "data.train[0x].path=3",
                    "expected SECTION.KEY=VALUE, such as train.steps=100"},
        BadOverride{"NoIndex", "data.train].path=3",
                    "expected SECTION.KEY=VALUE, such as train.steps=100"},
        BadOverride{"MisspeltKey", "train.stesp=3",
                    "unknown key `train.stesp`; did you mean `steps`?"},
        BadOverride{"NoSection", "steps=3", "unknown key `steps`; did you mean `train.steps`?"},
        BadOverride{"MisspeltSection", "trian.steps=3",
                    "unknown section [trian]; did you mean `train`?"},
        BadOverride{"WrongType", "train.steps=many",
                    "`train.steps` must be an integer; found the string \"many\""},
        BadOverride{"OutOfRange", "log.every=0", "`log.every` = 0 is out of range (at least 1)"},
        BadOverride{"WrongChoice", "model.tie=tide",
                    "`model.tie` = \"tide\" is not one of \"none\", \"tied\", \"swap_halves\"; did "
                    "you mean \"tied\"?"},
        BadOverride{"NoSuchEntry", "data.train[1].path=b",
                    "there is no such list entry; entries count from 0"},
        BadOverride{"NotAList", "model[0].width=3",
                    "there is no such list entry; entries count from 0"},
        BadOverride{"WholeEntry", "data.train[0]=b",
                    "set one key of the list entry, or the whole list"},
        BadOverride{"SectionAsValue", "device=cpu",
                    "`device` must be a table [device]; found the string \"cpu\""},
        BadOverride{"NotUtf8", "train.run_dir=runs/\xFF", "the value is not UTF-8"},
        BadOverride{"NumberInsideAList", "data.validation=[{path = 7}]",
                    "`data.validation[0].path` must be a string in quotes; found the integer 7"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(OverrideTest, AMistakeIsShownInOneLineWhateverTheArgumentHolds) {
  EXPECT_EQ(ErrorOf(kValid, {"train.steps\n\x1B[2J"}),
            "--set train.steps\\x0A\\x1B[2J: expected SECTION.KEY=VALUE, such as train.steps=100");
}

TEST(ConfigTest, ABrokenTableHeaderIsAnErrorAlsoWhereTheLibraryAsserts) {
  EXPECT_THAT(ErrorOf("[)model]\n"), StartsWith("run.toml:1: "));
}

TEST(OverrideTest, MistakesFollowThoseOfTheFileInTheirOrder) {
  EXPECT_EQ(ErrorOf(std::string(kValid) + "[log]\nevery = 0\n", {"b.c=1", "eval.every=x"}),
            "run.toml:17: `log.every` = 0 is out of range (at least 1)\n"
            "--set b.c=1: unknown section [b]; known sections are model, optim, schedule, data, "
            "parallel, train, eval, checkpoint, log, device\n"
            "--set eval.every=x: `eval.every` must be an integer; found the string \"x\"");
}

TEST(SharedConfigTest, AllRanksHaveWhatRank0Read) {
  const testing::TempDir directory;
  std::ofstream(directory.File("0.toml")) << kValid;
  // Rank 1 finds another text at its path, rank 2 none.
  std::ofstream(directory.File("1.toml")) << kValid << "[log]\nevery = 7\n";

  testing::RunRanks(3, [&](testing::RankWorld& world) {
    const std::string path = directory.File(std::to_string(world.rank()) + ".toml");
    RunOptions options;
    const std::vector<std::string> overrides = {"train.steps=20"};
    ASSERT_EQ(Message(LoadSharedConfig(world.host(), path, overrides, options)), "");
    EXPECT_EQ(options.train.steps, 20);
    EXPECT_EQ(options.log.every, LogOptions().every);
  });
}

TEST(SharedConfigTest, AllRanksGetTheMistakesOfRank0) {
  const testing::TempDir directory;
  testing::RunRanks(2, [&](testing::RankWorld& world) {
    RunOptions options;
    const std::string missing = directory.File("missing.toml");
    EXPECT_THAT(Message(LoadSharedConfig(world.host(), missing, {}, options)),
                HasSubstr("cannot read the configuration " + missing));
  });
  std::ofstream(directory.File("bad.toml")) << kValid << "[log]\nevry = 7\n";
  testing::RunRanks(2, [&](testing::RankWorld& world) {
    RunOptions options;
    EXPECT_THAT(Message(LoadSharedConfig(world.host(), directory.File("bad.toml"), {}, options)),
                HasSubstr("bad.toml:17: unknown key `log.evry`"));
  });
}

}  // namespace
}  // namespace panthera
