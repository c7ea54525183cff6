#include <fstream>
#include <iostream>
#include <random>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/mutation.h"

namespace panthera::testing {
namespace {

constexpr int kMutations = 1000;

class FuzzReplayTest : public ::testing::TestWithParam<NamedTarget> {
 protected:
  // A broken promise ends the process, so the input is written down before it is tried.
  Verdict Check(const Parts& parts) {
    std::ofstream(input_path_, std::ios::binary) << JoinParts(parts);
    return target_->Check(parts);
  }

  const std::unique_ptr<FuzzTarget> target_ = GetParam().make();
  const std::string input_path_ =
      absl::StrCat(PANTHERA_FUZZ_INPUTS, "/", GetParam().name, ".input");
};

TEST_P(FuzzReplayTest, AcceptsWhatOurOwnWritersMade) {
  int number = 0;
  for (const Parts& seed : target_->Seeds()) {
    EXPECT_EQ(Check(seed), Verdict::kAccepted) << "seed " << number;
    ++number;
  }
  EXPECT_GT(number, 0);
}

TEST_P(FuzzReplayTest, KeepsItsPromisesForDamagedInputs) {
  std::cout << "the input being tried is " << input_path_ << "\n";
  const std::vector<Parts> seeds = target_->Seeds();
  const std::vector<std::string> words = target_->Words();
  std::mt19937_64 random(0);
  int accepted = 0;
  for (int i = 0; i < kMutations; ++i) {
    Parts parts = seeds[random() % seeds.size()];
    Mutate(random, words, parts[random() % parts.size()]);
    if (random() % 4 != 0) {
      target_->Repair(random(), parts);
    }
    accepted += Check(parts) == Verdict::kAccepted ? 1 : 0;
  }
  RecordProperty("accepted", accepted);
  // Damage that is always found at the first look, or never, tests little.
  EXPECT_GT(accepted, kMutations / 50);
  EXPECT_LT(accepted, kMutations * 49 / 50);
}

INSTANTIATE_TEST_SUITE_P(Readers, FuzzReplayTest, ::testing::ValuesIn(FuzzTargets()),
                         [](const ::testing::TestParamInfo<NamedTarget>& target) {
                           return std::string(target.param.name);
                         });

}  // namespace
}  // namespace panthera::testing
