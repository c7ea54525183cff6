// What the commands do with a run of tensor-parallel ranks, and as such ranks: the program itself.
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/bad_input/program_run.h"
#include "tests/bad_input/workspace.h"

namespace panthera::testing {
namespace {

using ::testing::HasSubstr;

class MeshCommandsTest : public ::testing::Test {
 protected:
  // What all ranks print, each of which must end with 0.
  std::string Run(int ranks, const std::vector<std::string>& arguments) {
    const ProgramRun run = RunProgram(workspace_.path(), arguments, ranks);
    EXPECT_EQ(run.exit_codes, std::vector<int>(static_cast<size_t>(ranks), 0)) << run.output;
    return run.output;
  }
  std::string Train(int ranks, int tensor, const std::string& run_dir) {
    return Run(ranks,
               {"train", "run.toml", "--set", "train.steps=40", "--set", "optim.learning_rate=0.05",
                "--set", "schedule.warmup_steps=2", "--set", "checkpoint.every=40", "--set",
                "model.tie=swap_halves", "--set", "log.every=40", "--set",
                "parallel.tensor=" + std::to_string(tensor), "--set", "train.run_dir=" + run_dir});
  }
  double EvalLoss(int ranks, int tensor, const std::string& run) {
    const std::string output = Run(ranks, {"eval", run, "--data", "train", "--batch", "3",
                                           "--device", "cpu", "--tensor", std::to_string(tensor)});
    const std::string key = "\nloss ";
    const size_t place = output.find(key);
    EXPECT_NE(place, std::string::npos) << output;
    return place == std::string::npos ? NAN : std::atof(output.c_str() + place + key.size());
  }

  const Workspace workspace_{Workspace::Contents::kData};
};

// Losses are printed with four decimals, of which either side rounds the last.
TEST_F(MeshCommandsTest, EvalAndGenerateSayOnTensorRanksWhatOneProcessSays) {
  Train(4, 2, "run");
  const double loss = EvalLoss(1, 1, "run");
  EXPECT_LT(loss, 5.0) << "nothing was learnt";
  EXPECT_NEAR(EvalLoss(2, 2, "run"), loss, 1.01e-4);
  EXPECT_NEAR(EvalLoss(4, 2, "run"), loss, 1.01e-4);

  const std::vector<std::string> greedy = {"generate", "run", "--prompt",      "The rain",
                                           "--tokens", "40",  "--temperature", "0"};
  const std::string text = Run(1, greedy);
  EXPECT_THAT(text, HasSubstr("The rain"));
  EXPECT_GT(text.size(), 20U);
  EXPECT_EQ(Run(2, greedy), text);
}

TEST_F(MeshCommandsTest, ARunOfTensorRanksCanBeInspectedAndConvertedAsAnyOther) {
  Train(4, 2, "run");
  EXPECT_THAT(Run(1, {"inspect", "run", "--verify"}), HasSubstr("40"));
  Run(1, {"convert", "run", "out"});
  EXPECT_THAT(Run(1, {"inspect", "out/model.safetensors"}), HasSubstr("lm_head.weight"));
}

}  // namespace
}  // namespace panthera::testing
