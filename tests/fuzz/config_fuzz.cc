// Two targets: the text of a configuration, and --set overrides of one.
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "launcher/config_changes.h"
#include "launcher/config_file.h"
#include "launcher/config_text.h"
#include "runtime/base/check.h"
#include "tests/fuzz/fuzz_target.h"

namespace panthera::testing {
namespace {

constexpr char kFile[] = "fuzz.toml";
constexpr char kSmallest[] = R"([model]
vocab_size = 257
width = 128
layers = 4
heads = 4
ffn_width = 384
sequence_length = 128
[data]
tokenizer = "bytes"
[[data.train]]
path = "data/toy"
weight = 2
[train]
steps = 300
global_batch = 16
micro_batch = 8
run_dir = "runs/toy"
)";

RunOptions Parse(const std::string& text, const std::vector<std::string>& overrides) {
  RunOptions options;
  CHECK_OK(ParseConfig(text, kFile, overrides, options)) << text;
  return options;
}

// What is printed, as into a checkpoint, must be read back as it was.
void CheckRoundTrip(const RunOptions& options) {
  const std::string printed = PrintConfig(options);
  const RunOptions again = Parse(printed, {});
  for (const ConfigChange& change : CompareConfigs(options, again)) {
    CHECK(false) << change.ToString() << "\n" << printed;
  }
  CHECK_EQ(PrintConfig(again), printed);
}

// Whatever number of ranks takes the options can also save and resume with them.
void CheckFinished(const RunOptions& options) {
  for (const int ranks : {1, 2, 3, 8}) {
    RunOptions finished = options;
    const absl::Status status = finished.Finish(ranks);
    if (!status.ok()) {
      CheckIsOneLine(status);
      continue;
    }
    CheckRoundTrip(finished);
    RunOptions twice = finished;
    CHECK_OK(twice.Finish(ranks));
    CHECK(CompareConfigs(finished, twice).empty());
  }
}

// Every mistake has a line of its own, which begins with its place.
void CheckErrors(const absl::Status& status) {
  CHECK(absl::IsInvalidArgument(status)) << status.ToString();
  for (const auto& line : absl::StrSplit(std::string(status.message()), '\n')) {
    CheckIsOneLine(absl::InvalidArgumentError(line));
    CHECK(absl::StartsWith(line, kFile) || absl::StartsWith(line, "--set ")) << status.ToString();
  }
}

// The keys and values of options.
std::vector<std::string> FieldWords() {
  RunOptions options;
  options.optim.schedule.points.resize(1);
  options.data.train.resize(1);
  std::vector<std::string> words = {"[",
                                    "]",
                                    "[[",
                                    "]]",
                                    "=",
                                    ".",
                                    "\"",
                                    "'''",
                                    "\"\"\"",
                                    "#",
                                    "{",
                                    "}",
                                    "nan",
                                    "-inf",
                                    "1e400",
                                    "0x7F",
                                    "1979-05-27T07:32:00Z",
                                    "true",
                                    "\\u0000",
                                    "[[schedule.points]]",
                                    "step = 1",
                                    "factor = 0.5",
                                    "\xFF"};
  for (const ConfigField& field : ListFields(options)) {
    words.push_back(field.key);
    words.push_back(absl::StrCat(field.key.substr(field.key.rfind('.') + 1), " = ", field.value));
  }
  return words;
}

class ConfigTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    const std::string points = absl::StrCat(
        kSmallest, "[schedule]\nkind = \"piecewise\"\n[[schedule.points]]\nstep = 5\nfactor = 1\n",
        "[[schedule.points]]\nstep = 300\nfactor = 1e-3\n");
    return {{kSmallest}, {PrintConfig(Parse(kSmallest, {}))}, {PrintConfig(Parse(points, {}))}};
  }

  std::vector<std::string> Words() const override { return FieldWords(); }

  Verdict Check(const Parts& parts) override {
    RunOptions options;
    const absl::Status status = ParseConfig(parts[0], kFile, {}, options);
    if (!status.ok()) {
      CheckErrors(status);
      return Verdict::kRefused;
    }
    CheckRoundTrip(options);
    CheckFinished(options);
    return Verdict::kAccepted;
  }
};

// Every part is an override of the same configuration.
class OverridesTarget final : public FuzzTarget {
 public:
  std::vector<Parts> Seeds() const override {
    return {{"train.steps=10"},
            {"data.train[0].path=other.bin", "data.validation=[{path='v.bin', weight=0.5}]"},
            {"optim.algorithm=adamw", "optim.accumulate=gradient", "optim.clip_norm=1.0"},
            {"schedule.kind=piecewise", "schedule.points=[{step=0, factor=1.0}]"},
            {"train.run_dir=1979-05-27", "train.run_dir=\"runs/\\u0041\""},
            {"device={kind='cpu'}", "log.every=0x10"}};
  }

  std::vector<std::string> Words() const override { return FieldWords(); }

  Verdict Check(const Parts& parts) override {
    RunOptions options;
    const absl::Status status = ParseConfig(kSmallest, kFile, parts, options);
    if (!status.ok()) {
      CheckErrors(status);
      return Verdict::kRefused;
    }
    CheckRoundTrip(options);
    CheckFinished(options);
    CheckChanges(options);
    return Verdict::kAccepted;
  }

 private:
  // What differs from the file, given as overrides, must lead to the same options.
  static void CheckChanges(const RunOptions& options) {
    const RunOptions before = Parse(kSmallest, {});
    const std::vector<ConfigChange> changes = CompareConfigs(before, options);
    const std::vector<ConfigChange> back = CompareConfigs(options, before);
    CHECK_EQ(changes.size(), back.size());
    std::vector<std::string> overrides;
    bool same_lists = true;
    for (const ConfigChange& change : changes) {
      CHECK_NE(change.before, change.after);
      same_lists = same_lists && change.before != "(absent)" && change.after != "(absent)";
      overrides.push_back(absl::StrCat(change.key, "=", change.after));
    }
    const ResumeChanges classified = ClassifyForResume(changes);
    CHECK_EQ(classified.refused.size() + classified.allowed.size(), changes.size());
    if (same_lists) {
      CHECK(CompareConfigs(Parse(kSmallest, overrides), options).empty());
    }
  }
};

}  // namespace

std::unique_ptr<FuzzTarget> MakeConfigTarget() { return std::make_unique<ConfigTarget>(); }

std::unique_ptr<FuzzTarget> MakeOverridesTarget() { return std::make_unique<OverridesTarget>(); }

}  // namespace panthera::testing
