#include "launcher/config_text.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "launcher/config_changes.h"
#include "launcher/config_file.h"
#include "launcher/field_text.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> Differences(const RunOptions& a, const RunOptions& b) {
  std::vector<std::string> texts;
  for (const ConfigChange& change : CompareConfigs(a, b)) {
    texts.push_back(change.ToString());
  }
  return texts;
}

RunOptions PrintAndRead(const RunOptions& options) {
  RunOptions read;
  const absl::Status status = ParseConfig(PrintConfig(options), "printed.toml", {}, read);
  EXPECT_TRUE(status.ok()) << status << "\n" << PrintConfig(options);
  return read;
}

// Has a value for every key that needs one.
RunOptions Smallest() {
  RunOptions options;
  for (int64_t* size :
       {&options.model.vocab_size, &options.model.width, &options.model.layers,
        &options.model.heads, &options.model.ffn_width, &options.model.sequence_length,
        &options.train.steps, &options.train.global_batch, &options.train.micro_batch}) {
    *size = 2;
  }
  return options;
}

// Gives every field a value that is not its default.
class ChangeEverything final : public SectionVisitor {
 public:
  void BeginSection(const FieldInfo&) override {}
  void EndSection() override {}
  void Int(const FieldInfo&, int64_t& value, IntRange range) override {
    value = std::min(range.max, std::max(range.min, value) + ++count_);
  }
  void Real(const FieldInfo&, double& value, RealRange range) override {
    value = range.min + (std::min(range.max, 1e6) - range.min) / (3.0 + ++count_);
  }
  void Text(const FieldInfo&, std::string& value) override {
    value = "text \"" + std::to_string(++count_) + "\" \\ \n\t\x7f \xc3\xa4";
  }
  void Choice(const FieldInfo&, std::span<const char* const> names, size_t& index) override {
    index = (index + 1) % names.size();
  }
  size_t BeginRecords(const FieldInfo&, size_t) override { return 2; }
  void BeginRecord(size_t) override {}
  void EndRecord() override {}
  void EndRecords() override {}

 private:
  int count_ = 0;
};

TEST(ConfigTextTest, ReadingWhatWasPrintedGivesEqualOptions) {
  RunOptions options;
  ChangeEverything change;
  options.VisitSections(change);
  EXPECT_THAT(Differences(options, PrintAndRead(options)), ::testing::IsEmpty());
  // The comparison sees every field: the changed options differ from the defaults in all of them.
  EXPECT_EQ(Differences(RunOptions(), options).size(), ListFields(options).size());
}

TEST(ConfigTextTest, PrintingTwiceIsPrintingOnce) {
  RunOptions options;
  ChangeEverything change;
  options.VisitSections(change);
  EXPECT_EQ(PrintConfig(PrintAndRead(options)), PrintConfig(options));
}

TEST(ConfigTextTest, EachKeyIsPrintedWithItsMeaningRangeAndValue) {
  RunOptions options;
  options.model.layers = 7;
  options.data.train = {{.path = "a", .weight = 1}, {.path = "b", .weight = 2}};
  const std::string text = PrintConfig(options);
  EXPECT_THAT(text, HasSubstr("[model]\n"));
  EXPECT_THAT(text, HasSubstr("# transformer blocks (L) [1 to 4096]\nlayers = 7\n"));
  EXPECT_THAT(text, HasSubstr("# update rule [\"tiger\", \"lion\", \"adamw\"]\n"
                              "algorithm = \"tiger\"\n"));
  EXPECT_THAT(text, HasSubstr("# token files to measure on; may be empty\nvalidation = []\n"));
  EXPECT_THAT(text, HasSubstr("[[data.train]]\npath = \"b\"\nweight = 2.0\n"));
}

TEST(ConfigTextTest, LinesFitIntoAHundredColumns) {
  const std::string text = PrintConfigReference();
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 100U) << text.substr(begin, end - begin);
    begin = end + 1;
  }
}

TEST(ConfigTextTest, TheReferenceExplainsEveryKeyOnce) {
  RunOptions options;
  options.optim.schedule.points.resize(1);
  options.data.train.resize(1);
  options.data.validation.resize(1);
  const std::string text = PrintConfigReference();
  std::set<std::string> keys;
  for (const ConfigField& field : ListFields(options)) {
    EXPECT_FALSE(field.help.empty()) << field.key;
    EXPECT_TRUE(keys.insert(field.key).second) << field.key << " appears twice";
    const std::string name = field.key.substr(field.key.rfind('.') + 1);
    EXPECT_THAT(text, HasSubstr("\n" + name + " = " + field.value + "\n"));
  }
  EXPECT_GT(keys.size(), 40U);
  EXPECT_THAT(text, HasSubstr("# transformer blocks (L) [1 to 4096; must be set]\nlayers = 0\n"));
}

TEST(ConfigTextTest, FieldNamesAreLowerCaseWords) {
  RunOptions options;
  options.data.train.resize(1);
  for (const ConfigField& field : ListFields(options)) {
    EXPECT_EQ(field.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.[]"),
              std::string::npos)
        << field.key;
  }
}

// Those of many digits without point or exponent would be integers beyond TOML's 64 bits.
TEST(FieldTextTest, RealsReadBackExactly) {
  for (const double value : {0.0, 1.0, 0.1, 1e-3, 1.0 / 3.0, 123456.0, 0x1p53, 0x1p63, 1e22, 1e23,
                             12345678901234567890.0, 5e-324, std::numeric_limits<double>::max()}) {
    EXPECT_EQ(std::strtod(RealText(value).c_str(), nullptr), value);
    RunOptions options = Smallest();
    options.optim.schedule.points = {{.step = 0, .factor = value}};  // any number from 0 on
    EXPECT_EQ(PrintAndRead(options).optim.schedule.points.at(0).factor, value);
  }
  EXPECT_EQ(RealText(0.002), "0.002");
  EXPECT_EQ(RealText(10000), "10000.0");
}

TEST(FieldTextTest, TextsAreTomlStrings) {
  EXPECT_EQ(QuotedText("plain"), "\"plain\"");
  EXPECT_EQ(QuotedText("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000Ad\"");
  EXPECT_EQ(QuotedText("\x7f"), "\"\\u007F\"");
}

TEST(FieldTextTest, RangesNameTheirEnds) {
  EXPECT_EQ(RangeText(IntRange{1, 4096}), "1 to 4096");
  EXPECT_EQ(RangeText(IntRange{}), "at least 0");
  EXPECT_EQ(RangeText(RealRange{0, 1}), "0.0 to 1.0");
  EXPECT_EQ(RangeText(RealRange{}), "at least 0.0");
}

}  // namespace
}  // namespace panthera
