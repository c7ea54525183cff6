#include <omp.h>

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "launcher/config_file.h"
#include "launcher/exit_codes.h"
#include "launcher/plan_command.h"
#include "launcher/trainer.h"

namespace panthera {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

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

StepPlan PlanOf(RunOptions options, int ranks, int tensor_rank, Device target) {
  CHECK_OK(options.Finish(ranks));
  absl::StatusOr<World> world = PlanWorld(options.parallel, ranks, tensor_rank);
  CHECK_OK(world.status());
  return Trainer::Plan(options, *world, target);
}

StepPlan PlanFor(const std::string& name, int ranks, Device target) {
  RunOptions options;
  CHECK_OK(LoadConfig(ConfigPath(name), {}, options));
  return PlanOf(options, ranks, 0, target);
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

TEST(PlanCommandTest, SaysWhatTravelsAlongEachAxis) {
  RunOptions options;
  ASSERT_EQ(LoadConfig(ConfigPath("toy_1m"), {}, options), absl::OkStatus());
  options.parallel.tensor = 2;
  const AxisBytes sent = PlanOf(options, 4, 0, {}).sent;
  const std::string both = RunPlan("--ranks 4 --set parallel.tensor=2").out;
  EXPECT_THAT(both, HasSubstr("(data 2 x tensor 2)"));
  EXPECT_THAT(both, HasSubstr("sent by a rank      " + FormatBytes(sent.sum()) + " per step\n"));
  EXPECT_THAT(both, ContainsRegex("  data axis         " + FormatBytes(sent.data) +
                                  " +to 1 rank; [0-9.]+[kMG]?FLOPs for each byte\n"));
  EXPECT_THAT(both, ContainsRegex("  tensor axis       " + FormatBytes(sent.tensor) +
                                  " +to 1 rank; [0-9.]+[kMG]?FLOPs for each byte\n"));
}

TEST(PlanCommandTest, SaysNothingOfAnAxisWithoutPeers) {
  const std::string data = RunPlan("--ranks 2").out;
  EXPECT_THAT(data, HasSubstr("data axis"));
  EXPECT_THAT(data, Not(HasSubstr("tensor")));
  const std::string tensor = RunPlan("--ranks 2 --set parallel.tensor=2").out;
  EXPECT_THAT(tensor, HasSubstr("tensor axis"));
  EXPECT_THAT(tensor, Not(HasSubstr("data axis")));
  EXPECT_THAT(RunPlan("").out, Not(HasSubstr(" axis")));
}

// On a GPU; a CPU's library may want more scratch for a smaller product.
TEST(PlanTest, NoTensorRankNeedsOrSendsMoreThanTheFirst) {
  const Device gpu{DeviceKind::kCuda, 0};
  for (const char* const name : {"toy_1m", "llama_124m", "llama_7b_64gpu"}) {
    for (const int64_t kv_heads : {0, 1, 2}) {
      for (const int tensor : {2, 3, 4}) {
        SCOPED_TRACE(absl::StrCat(name, ", ", kv_heads, " key heads, ", tensor, " ranks"));
        RunOptions options;
        ASSERT_EQ(LoadConfig(ConfigPath(name), {}, options), absl::OkStatus());
        options.model.layers = 2;
        options.model.kv_heads = kv_heads;
        options.model.ffn_width += 24;
        options.model.vocab_size += 3;
        options.parallel.tensor = tensor;
        const StepPlan first = PlanOf(options, tensor, 0, gpu);
        for (int rank = 1; rank < tensor; ++rank) {
          const StepPlan plan = PlanOf(options, tensor, rank, gpu);
          EXPECT_LE(plan.arena_bytes, first.arena_bytes) << rank;
          EXPECT_LE(plan.sent.data, first.sent.data) << rank;
          EXPECT_EQ(plan.sent.tensor, first.sent.tensor) << rank;
          for (int c = 0; c < kNumMemoryCategories; ++c) {
            const auto category = static_cast<MemoryCategory>(c);
            EXPECT_LE(plan.memory.bytes(category), first.memory.bytes(category))
                << rank << ", " << Name(category);
          }
        }
      }
    }
  }
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
