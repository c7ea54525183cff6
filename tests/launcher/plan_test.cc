#include <omp.h>

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include <gmock/gmock.h>

#include "launcher/config_file.h"
#include "launcher/exit_codes.h"
#include "launcher/plan_command.h"
#include "launcher/trainer.h"

namespace panthera {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string out;
  std::string err;
};

std::string ConfigPath(const std::string& name) {
  return std::string(PANTHERA_CONFIGS) + "/" + name + ".toml";
}

Outcome RunPlan(const std::string& arguments) {
  Outcome outcome;
  CLI::App app;
  AddPlanCommand(app, outcome.exit_code);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  app.parse("plan " + ConfigPath("toy_1m") + " " + arguments);
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

StepPlan PlanFor(const std::string& name, int ranks, Device target) {
  RunOptions options;
  CHECK_OK(LoadConfig(ConfigPath(name), {}, options));
  CHECK_OK(options.Finish(ranks));
  absl::StatusOr<World> world = PlanWorld(options.parallel, ranks);
  CHECK_OK(world.status());
  return Trainer::Plan(options, *world, target);
}

TEST(PlanCommandTest, ThreadsThatAreNamedDecideWhateverThePlanningMachineHas) {
  omp_set_num_threads(1);
  const Outcome first = RunPlan("--threads 2");
  omp_set_num_threads(7);
  const Outcome second = RunPlan("--threads 2");
  EXPECT_EQ(first.exit_code, kExitDone) << first.err;
  EXPECT_THAT(first.out, HasSubstr("1 x cpu of 2 threads"));
  EXPECT_EQ(first.out, second.out);
  EXPECT_NE(first.out, RunPlan("--threads 6").out);
}

TEST(PlanCommandTest, RanksShareTheCoresOfThisMachineByDefault) {
  const int cores = omp_get_num_procs();
  EXPECT_THAT(RunPlan("").out, HasSubstr("1 x cpu of " + std::to_string(cores) + " threads"));
  EXPECT_THAT(RunPlan("--ranks 2").out,
              HasSubstr("2 x cpu of " + std::to_string(std::max(1, cores / 2)) + " threads"));
}

TEST(PlanCommandTest, RefusesMemoryThatIsNoSize) {
  for (const std::string text : {"inf", "nan", "0", "lots"}) {
    const Outcome outcome = RunPlan("--memory " + text);
    EXPECT_EQ(outcome.exit_code, kExitRefused) << text;
    EXPECT_THAT(outcome.err, HasSubstr("--memory: \"" + text + "\""));
  }
}

TEST(PlanCommandTest, RefusesMoreStepsThanCountersHold) {
  const Outcome outcome = RunPlan("--set train.steps=1099511627777");
  EXPECT_EQ(outcome.exit_code, kExitRefused);
  EXPECT_THAT(outcome.err, HasSubstr("train.steps"));
}

TEST(PlanCommandTest, SaysWhatTakesTheMemoryWhenItDoesNotFit) {
  const Outcome outcome = RunPlan("--threads 1 --memory 1MiB");
  EXPECT_EQ(outcome.exit_code, kExitDoesNotFit) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("fits                no"));
  EXPECT_THAT(outcome.out, ContainsRegex("most of activations\n  [0-9.]+ [KMG]iB"));
  EXPECT_THAT(outcome.out, HasSubstr("  no "));
  const Outcome enough = RunPlan("--threads 1 --memory 1TiB");
  EXPECT_EQ(enough.exit_code, kExitDone) << enough.err;
  EXPECT_THAT(enough.out, HasSubstr("fits                yes"));
}

TEST(PlanTest, AGpuNeedsNoScratchOfThisMachinesThreads) {
  const Device gpu{DeviceKind::kCuda, 0};
  omp_set_num_threads(1);
  const int64_t one = PlanFor("llama_1b_8gpu", 8, gpu).arena_bytes;
  omp_set_num_threads(16);
  EXPECT_EQ(PlanFor("llama_1b_8gpu", 8, gpu).arena_bytes, one);
}

TEST(PlanTest, ThreadsOfACpuHaveScratchEach) {
  omp_set_num_threads(1);
  const int64_t one = PlanFor("llama_124m", 1, {}).arena_bytes;
  omp_set_num_threads(8);
  EXPECT_GE(PlanFor("llama_124m", 1, {}).arena_bytes, one);
}

}  // namespace
}  // namespace panthera
