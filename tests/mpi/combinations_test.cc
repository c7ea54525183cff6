// Every combination of the optimizer's choices that is allowed: processes under mpirun do what as
// many threads of one process do, with infinities among the gradients.
#include <gtest/gtest.h>

#include "tests/optim/option_choices.h"
#include "tests/optim/small_training.h"
#include "tests/support/mpi_test_main.h"

namespace panthera {
namespace {

using testing::Choices;
using testing::MpiTestWorld;
using testing::Outcome;
using testing::RankWorld;
using testing::SmallTraining;

constexpr int kSteps = 3;

class MpiCombinationsTest : public ::testing::TestWithParam<Algorithm> {};

INSTANTIATE_TEST_SUITE_P(Algorithms, MpiCombinationsTest,
                         ::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                         [](const auto& test) { return EnumName(test.param); });

TEST_P(MpiCombinationsTest, ProcessesDoWhatThreadsDo) {
  RankWorld& process = MpiTestWorld();
  int compared = 0;
  for (const Choices& choices : testing::AllowedCombinations()) {
    const OptimOptions options = testing::FinishedWith(choices);
    if (options.algorithm != GetParam()) {
      continue;
    }
    const SmallTraining training(options, process.size(), testing::PoisonFor(options));
    Outcome actual = SmallTraining::EmptyOutcome();
    training.RunOn(process, kSteps, actual);
    Outcome expected = SmallTraining::EmptyOutcome();
    testing::RunRanks(process.size(), [&](RankWorld& thread) {
      Outcome other = SmallTraining::EmptyOutcome();
      training.RunOn(thread, kSteps, thread.rank() == process.rank() ? expected : other);
    });
    EXPECT_TRUE(SameBits(actual, expected)) << testing::Describe(choices);
    EXPECT_TRUE(actual.replicas == expected.replicas) << testing::Describe(choices);
    ++compared;
  }
  EXPECT_GE(compared, 16);
  process.Meet();
}

}  // namespace
}  // namespace panthera
