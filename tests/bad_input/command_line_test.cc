#include "gtest/gtest.h"

#include "tests/bad_input/bad_input.h"
#include "tests/bad_input/program_run.h"

namespace panthera::testing {
namespace {

constexpr auto kDataAndRun = Workspace::Contents::kDataAndRun;

TEST(BadCommandLine, IsNamed) {
  ExpectNamed("Command line", {
                                  {.what = "an unknown subcommand",
                                   .arguments = {"trian", "run.toml"},
                                   .names = "`trian`",
                                   .fix = "did you mean `train`?"},
                                  {.what = "an unknown subcommand, close to none",
                                   .arguments = {"launch", "run.toml"},
                                   .names = "`launch`",
                                   .fix = "`panthera --help`"},
                                  {.what = "an unknown flag",
                                   .arguments = {"train", "run.toml", "--frehs"},
                                   .names = "`--frehs`",
                                   .fix = "did you mean `--fresh`?"},
                                  {.what = "an unknown flag, close to none",
                                   .arguments = {"train", "run.toml", "--quick"},
                                   .names = "`--quick`",
                                   .fix = "`panthera train --help`"},
                                  {.what = "an argument too many",
                                   .arguments = {"train", "run.toml", "other.toml"},
                                   .names = "`other.toml`",
                                   .fix = "`panthera train --help`"},
                                  {.what = "no configuration",
                                   .arguments = {"train"},
                                   .names = "CONFIG",
                                   .fix = "`panthera train --help`"},
                                  {.what = "a flag without its value",
                                   .arguments = {"train", "run.toml", "--set"},
                                   .names = "--set",
                                   .fix = "`panthera train --help`"},
                                  {.what = "no number where one belongs",
                                   .arguments = {"plan", "run.toml", "--ranks", "many"},
                                   .names = "--ranks",
                                   .fix = "`panthera plan --help`"},
                                  {.what = "a number of ranks below 1",
                                   .arguments = {"plan", "run.toml", "--ranks", "0"},
                                   .names = "--ranks",
                                   .fix = "`panthera plan --help`"},
                                  {.what = "an unknown choice of a flag",
                                   .arguments = {"plan", "run.toml", "--device", "tpu"},
                                   .names = "--device",
                                   .fix = "cuda"},
                                  {.what = "a temperature below 0",
                                   .arguments = {"generate", "run", "--temperature", "-1"},
                                   .names = "--temperature",
                                   .fix = "at least 0",
                                   .contents = kDataAndRun},
                                  {.what = "a temperature that is no number",
                                   .arguments = {"generate", "run", "--temperature", "warm"},
                                   .names = "--temperature",
                                   .fix = "`panthera generate --help`",
                                   .contents = kDataAndRun},
                                  {.what = "a temperature that is nan",
                                   .arguments = {"generate", "run", "--temperature", "nan"},
                                   .names = "--temperature",
                                   .fix = "of at least 0",
                                   .contents = kDataAndRun},
                                  {.what = "a probability above 1",
                                   .arguments = {"generate", "run", "--top-p", "1.5"},
                                   .names = "--top-p",
                                   .fix = "from 0 to 1",
                                   .contents = kDataAndRun},
                                  {.what = "report: a directory without a run",
                                   .arguments = {"report", ".", "--output", "page.html"},
                                   .names = "./config.toml",
                                   .fix = "give the train.run_dir of a run",
                                   .contents = kDataAndRun},
                                  {.what = "config: a wrong key",
                                   .arguments = {"config", "run.toml", "--set", "train.step=1"},
                                   .names = "panthera config: --set train.step=1",
                                   .fix = "did you mean `steps`?"},
                              });
}

// Not bad input: a model sees the end of a text that is longer than its context.
TEST(LongPrompt, IsContinuedFromItsEnd) {
  const Workspace workspace(kDataAndRun);
  const ProgramRun run =
      RunProgram(workspace.path(),
                 {"generate", "run", "--tokens", "3", "--prompt", std::string(1000, 'a')}, 1);
  EXPECT_EQ(run.exit_codes, std::vector<int>{0}) << run.output;
  EXPECT_EQ(run.output.substr(0, 1000), std::string(1000, 'a'));
}

}  // namespace
}  // namespace panthera::testing
