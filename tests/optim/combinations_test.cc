// Every combination of the optimizer's choices, whichever there are: it is refused with a fix that
// helps, or any number of ranks agrees on it bit for bit, with or without what is not finite.
#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <gtest/gtest.h>

#include "tests/optim/small_training.h"

namespace panthera {
namespace {

using testing::Outcome;
using testing::SmallTraining;

constexpr int kSteps = 3;

// Visits only what is chosen from a list.
class ChoiceVisitor : public FieldVisitor {
 public:
  void Int(const FieldInfo& /*info*/, int64_t& /*value*/, IntRange /*range*/) override {}
  void Real(const FieldInfo& /*info*/, double& /*value*/, RealRange /*range*/) override {}
  void Text(const FieldInfo& /*info*/, std::string& /*value*/) override {}
  size_t BeginRecords(const FieldInfo& /*info*/, size_t count) override { return count; }
  void BeginRecord(size_t /*index*/) override {}
  void EndRecord() override {}
  void EndRecords() override {}
};

// By key; values count in the key's names.
using Choices = std::map<std::string, size_t>;

class ListChoices final : public ChoiceVisitor {
 public:
  void Choice(const FieldInfo& info, std::span<const char* const> names, size_t& index) override {
    this->names[info.name] = {names.begin(), names.end()};
    values[info.name] = index;
  }

  std::map<std::string, std::vector<std::string>> names;
  Choices values;
};

class SetChoices final : public ChoiceVisitor {
 public:
  explicit SetChoices(const Choices& values) : values_(values) {}
  void Choice(const FieldInfo& info, std::span<const char* const> /*names*/,
              size_t& index) override {
    const auto found = values_.find(info.name);
    if (found != values_.end()) {
      index = found->second;
    }
  }

 private:
  const Choices& values_;
};

ListChoices ChoicesOf(OptimOptions options) {
  ListChoices list;
  options.VisitFields(list);
  return list;
}

OptimOptions With(const Choices& choices, OptimOptions options = {}) {
  SetChoices set(choices);
  options.VisitFields(set);
  return options;
}

std::string Describe(const Choices& choices) {
  const ListChoices all = ChoicesOf({});
  std::string text;
  for (const auto& [key, value] : choices) {
    absl::StrAppend(&text, key, "=", all.names.at(key)[value], " ");
  }
  return text;
}

std::vector<Choices> EveryCombination() {
  std::vector<Choices> combinations = {{}};
  for (const auto& [key, names] : ChoicesOf({}).names) {
    std::vector<Choices> longer;
    for (const Choices& choices : combinations) {
      for (size_t value = 0; value < names.size(); ++value) {
        longer.push_back(choices);
        longer.back()[key] = value;
      }
    }
    combinations = std::move(longer);
  }
  return combinations;
}

// What a message advises: the settings behind "set", each optim.KEY = "VALUE", of which any is said
// to help.
std::vector<Choices> FixesIn(const std::string& message) {
  const ListChoices all = ChoicesOf({});
  const std::vector<std::string> parts =
      absl::StrSplit(message.substr(std::min(message.rfind(": set "), message.size())), "optim.");
  std::vector<Choices> fixes;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::vector<std::string> pieces = absl::StrSplit(parts[i], '"');
    const std::string key(absl::StripSuffix(pieces[0], " = "));
    if (pieces.size() < 2 || !all.names.contains(key)) {
      ADD_FAILURE() << "no such choice: " << message;
      continue;
    }
    const std::vector<std::string>& names = all.names.at(key);
    const auto name = std::find(names.begin(), names.end(), pieces[1]);
    if (name == names.end()) {
      ADD_FAILURE() << "no such value: " << message;
      continue;
    }
    fixes.push_back({{key, static_cast<size_t>(name - names.begin())}});
  }
  return fixes;
}

// Whoever does what messages say, whichever of their fixes, gets there without undoing what they
// did before, of which `done` has the keys.
void ExpectFixesHelp(const OptimOptions& options, const std::string& begin,
                     const std::set<std::string>& done) {
  OptimOptions finished = options;
  const absl::Status status = finished.Finish();
  if (status.ok()) {
    return;
  }
  int fixes = 0;
  for (const Choices& fix : FixesIn(std::string(status.message()))) {
    const std::string& key = fix.begin()->first;
    if (done.contains(key)) {
      continue;
    }
    ++fixes;
    const OptimOptions fixed = With(fix, options);
    OptimOptions finished_fixed = fixed;
    EXPECT_NE(finished_fixed.Finish().message(), status.message()) << begin << Describe(fix);
    std::set<std::string> done_now = done;
    done_now.insert(key);
    ExpectFixesHelp(fixed, begin, done_now);
  }
  EXPECT_GT(fixes, 0) << begin << "is left without a fix after " << done.size()
                      << " of them: " << status.message();
}

TEST(CombinationsTest, WhatIsRefusedIsAcceptedAfterTheFixesThatAreNamed) {
  int refused = 0;
  for (const Choices& choices : EveryCombination()) {
    const OptimOptions options = With(choices);
    OptimOptions finished = options;
    refused += finished.Finish().ok() ? 0 : 1;
    ExpectFixesHelp(options, Describe(choices), /*done=*/{});
  }
  EXPECT_GT(refused, 100);
}

float SomeInfinities(int step, int64_t micro, int64_t part, ParamId id, int64_t i) {
  const bool bad = (step == 1 && id.index == 3 && micro == 0 && part == 3 && i == 2000) ||
                   (step == 1 && id.index == 0 && micro == 1 && part == 0 && i == 13 * 37 - 1) ||
                   (step == 2 && id.index == 5 && micro == 2 && part == 1 && i == 3);
  return bad ? std::numeric_limits<float>::infinity() : 0.0F;
}

bool SameBits(const Outcome& a, const Outcome& b) {
  return a.weights == b.weights && a.state1 == b.state1 && a.state2 == b.state2 &&
         a.tensors == b.tensors && a.masked == b.masked && a.skipped == b.skipped &&
         a.found == b.found;
}

// Choices by which nothing but the way of the same numbers differs.
constexpr const char* kWays[] = {"publish"};

class AllowedCombinationsTest : public ::testing::TestWithParam<Algorithm> {};

INSTANTIATE_TEST_SUITE_P(Algorithms, AllowedCombinationsTest,
                         ::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                         [](const auto& test) { return EnumName(test.param); });

TEST_P(AllowedCombinationsTest, AgreeOnAnyNumberOfRanks) {
  std::map<Choices, Outcome> expected;
  for (const Choices& choices : EveryCombination()) {
    OptimOptions options = With(choices);
    if (options.algorithm != GetParam() || options.nonfinite == NonFinitePolicy::kAuto ||
        options.lazy_rows == LazyRows::kAuto || !options.Finish().ok()) {
      continue;
    }
    const auto poison =
        options.nonfinite == NonFinitePolicy::kStop ? testing::NoPoison : SomeInfinities;
    Choices way_left_out = choices;
    for (const char* key : kWays) {
      way_left_out.erase(key);
    }
    if (!expected.contains(way_left_out)) {
      expected[way_left_out] = SmallTraining(options, 1, poison).Run(kSteps);
    }
    for (const int ranks : {1, 2, 4}) {
      EXPECT_TRUE(
          SameBits(SmallTraining(options, ranks, poison).Run(kSteps), expected.at(way_left_out)))
          << Describe(choices) << "on " << ranks << " ranks";
    }
  }
  EXPECT_GE(expected.size(), 16U);
}

}  // namespace
}  // namespace panthera
