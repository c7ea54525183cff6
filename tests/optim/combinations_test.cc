// Every combination of the optimizer's choices, whichever there are: it is refused with a fix that
// helps, or any number of ranks agrees on it bit for bit, with or without what is not finite.
#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <gtest/gtest.h>

#include "tests/optim/option_choices.h"
#include "tests/optim/small_training.h"

namespace panthera {
namespace {

using testing::ChoiceNames;
using testing::Choices;
using testing::Describe;
using testing::EveryCombination;
using testing::Outcome;
using testing::SmallTraining;
using testing::With;

constexpr int kSteps = 3;

// What a message advises: the settings behind "set", each optim.KEY = "VALUE", of which any is said
// to help.
std::vector<Choices> FixesIn(const std::string& message) {
  const std::vector<std::string> parts =
      absl::StrSplit(message.substr(std::min(message.rfind(": set "), message.size())), "optim.");
  std::vector<Choices> fixes;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::vector<std::string> pieces = absl::StrSplit(parts[i], '"');
    const std::string key(absl::StripSuffix(pieces[0], " = "));
    if (pieces.size() < 2 || !ChoiceNames().contains(key)) {
      ADD_FAILURE() << "no such choice: " << message;
      continue;
    }
    const std::vector<std::string>& names = ChoiceNames().at(key);
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

// Choices by which nothing but the way of the same numbers differs.
constexpr const char* kWays[] = {"publish"};

class AllowedCombinationsTest : public ::testing::TestWithParam<Algorithm> {};

INSTANTIATE_TEST_SUITE_P(Algorithms, AllowedCombinationsTest,
                         ::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                         [](const auto& test) { return EnumName(test.param); });

TEST_P(AllowedCombinationsTest, AgreeOnAnyNumberOfRanks) {
  std::map<Choices, Outcome> expected;
  for (const Choices& choices : testing::AllowedCombinations()) {
    const OptimOptions options = testing::FinishedWith(choices);
    if (options.algorithm != GetParam()) {
      continue;
    }
    Choices way_left_out = choices;
    for (const char* key : kWays) {
      way_left_out.erase(key);
    }
    for (const int ranks : {1, 2, 4}) {
      const Outcome outcome =
          SmallTraining(options, ranks, testing::PoisonFor(options)).Run(kSteps);
      const auto [first, is_first] = expected.try_emplace(way_left_out, outcome);
      EXPECT_TRUE(is_first || SameBits(outcome, first->second))
          << Describe(choices) << "on " << ranks << " ranks";
    }
  }
  EXPECT_GE(expected.size(), 16U);
}

}  // namespace
}  // namespace panthera
