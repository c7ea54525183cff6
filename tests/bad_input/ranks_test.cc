#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/checkpoint/run_lock.h"
#include "runtime/device/cuda_device.h"
#include "tests/bad_input/bad_input.h"
#include "tests/bad_input/program_run.h"

namespace panthera::testing {
namespace {

using ::testing::HasSubstr;

constexpr auto kDataAndRun = Workspace::Contents::kDataAndRun;

std::vector<std::string> TrainWith(const std::string& setting) {
  return {"train", "run.toml", "--set", setting};
}

TEST(BadRunDirectory, IsNamed) {
  std::optional<RunLock> other_run;
  ExpectNamed(
      "Run directories",
      {
          {.what = "the run directory is a file",
           .arguments = TrainWith("train.run_dir=text.txt"),
           .names = "text.txt",
           .fix = "train.run_dir",
           .ranks = 2},
          {.what = "the run directory cannot be made, here because its folder is a file",
           .arguments = TrainWith("train.run_dir=text.txt/run"),
           .names = "text.txt/run",
           .fix = "train.run_dir",
           .ranks = 2},
          {.what = "the run directory cannot be locked, here because its lock is a directory",
           .arguments = TrainWith("train.steps=4"),
           .names = "run/lock",
           .fix = "check",
           .spoil =
               [](const Workspace& files) {
                 files.Remove("run/lock");
                 files.MakeDirectory("run/lock");
               },
           .ranks = 2,
           .contents = kDataAndRun},
          {.what = "another run is going on in the run directory",
           .arguments = TrainWith("train.steps=4"),
           .names = "run directory run is in use by process 4242 on host node7 (job 99)",
           .fix = "wait until it ends",
           .spoil =
               [&](const Workspace& files) {
                 absl::StatusOr<RunLock> lock = RunLock::Acquire(
                     files.File("run"), {.host = "node7", .pid = 4242, .job = "99"});
                 CHECK_OK(lock.status());
                 other_run.emplace(*std::move(lock));
               },
           .ranks = 2,
           .contents = kDataAndRun},
          {.what = "the checkpoints of the run are a file",
           .arguments = TrainWith("train.steps=4"),
           .names = "run/checkpoints",
           .fix = "check the path",
           .spoil =
               [](const Workspace& files) {
                 files.Remove("run/checkpoints");
                 files.Write("run/checkpoints", "");
               },
           .ranks = 2,
           .contents = kDataAndRun},
      });
}

TEST(BadRanks, AreNamed) {
  ExpectNamed("Ranks, batch and memory",
              {
                  {.what = "a batch that does not divide among the ranks",
                   .arguments = TrainWith("train.global_batch=5"),
                   .names = "train.global_batch = 5",
                   .fix = "use a global_batch that is a multiple of 2",
                   .ranks = 2},
                  {.what = "a batch that does not divide into micro-batches",
                   .arguments = TrainWith("train.micro_batch=3"),
                   .names = "train.micro_batch = 3",
                   .fix = "or micro_batch 1, 2",
                   .ranks = 2},
                  {.what = "more ranks than sequences in a batch",
                   .arguments = TrainWith("train.global_batch=1"),
                   .names = "train.global_batch = 1",
                   .fix = "or start 1 data-parallel rank",
                   .ranks = 2},
                  {.what = "parallel.data x parallel.tensor is not the number of ranks",
                   .arguments = TrainWith("parallel.data=3"),
                   .names = "parallel.data = 3",
                   .fix = "use parallel.data = 2",
                   .ranks = 2},
                  {.what = "parallel.tensor does not divide the ranks",
                   .arguments = TrainWith("parallel.tensor=3"),
                   .names = "parallel.tensor = 3",
                   .fix = "use 1 or 2",
                   .ranks = 2},
                  {.what = "more tensor-parallel ranks than heads",
                   .arguments = {"train", "run.toml", "--set", "parallel.tensor=2", "--set",
                                 "model.heads=1"},
                   .names = "model.heads = 1",
                   .fix = "use a parallel.tensor of at most 1",
                   .ranks = 2},
                  {.what = "the run needs more memory than the host has",
                   .arguments = {"train", "run.toml", "--set", "model.width=131072", "--set",
                                 "model.heads=1024", "--set", "model.ffn_width=131072", "--set",
                                 "model.layers=1000"},
                   .names = "the 2 workers on this host need",
                   .fix = "use a smaller train.micro_batch",
                   .ranks = 2},
                  {.what = "eval: --tensor does not divide the ranks",
                   .arguments = {"eval", "run", "--data", "train", "--tensor", "3"},
                   .names = "--tensor 3",
                   .fix = "use a divisor, or start a multiple of 3",
                   .ranks = 2,
                   .contents = kDataAndRun},
                  {.what = "eval: more tensor-parallel ranks than heads",
                   .arguments = {"eval", "run", "--data", "train", "--tensor", "3"},
                   .names = "model.heads = 2",
                   .fix = "use a --tensor of at most 2",
                   .ranks = 3,
                   .contents = kDataAndRun},
                  {.what = "generate: more workers than heads",
                   .arguments = {"generate", "run"},
                   .names = "model.heads = 2",
                   .fix = "use a number of workers of at most 2",
                   .ranks = 3,
                   .contents = kDataAndRun},
                  {.what = "plan: the memory is no size",
                   .arguments = {"plan", "run.toml", "--memory", "80 potatoes"},
                   .names = "--memory",
                   .fix = "80GiB"},
                  {.what = "plan: a batch that does not divide among the ranks",
                   .arguments = {"plan", "run.toml", "--ranks", "3"},
                   .names = "train.global_batch = 4",
                   .fix = "use a global_batch that is a multiple of 3"},
              });
}

// What the program answers about GPUs depends on how it was built and where it runs; the table of
// errors has the answers of a build for CPUs.
TEST(BadDevice, IsNamed) {
  if (CountCudaDevices().status().code() != absl::StatusCode::kUnimplemented) {
    GTEST_SKIP() << "this build has CUDA, or an emulation of it";
  }
  ExpectNamed("Devices", {{.what = "a GPU is asked for in a build for CPUs",
                           .arguments = TrainWith("device.kind=cuda"),
                           .names = "built without CUDA",
                           .fix = "device.kind = \"cpu\"",
                           .ranks = 2}});
}

TEST(MoreWorkersThanGpus, AreRefusedOnEveryRank) {
  const absl::StatusOr<int> gpus = CountCudaDevices();
  if (!gpus.ok()) {
    GTEST_SKIP() << gpus.status();
  }
  const Workspace workspace(Workspace::Contents::kData);
  const int ranks = *gpus + 1;
  const ProgramRun run = RunProgram(workspace.path(),
                                    {"train", "run.toml", "--set", "device.kind=cuda", "--set",
                                     absl::StrCat("train.global_batch=", ranks)},
                                    ranks);
  EXPECT_EQ(run.exit_codes, std::vector<int>(static_cast<size_t>(ranks), 2)) << run.output;
  EXPECT_THAT(run.output, HasSubstr("--set device.sharing=mpi"));
  EXPECT_EQ(run.output.find('\n') + 1, run.output.size()) << "not one line:\n" << run.output;
}

// Not bad input: samples are counted over epochs, so ranks without a sample of their own compute on
// one that was used before.
TEST(FewData, SufficeForAnyNumberOfRanks) {
  const Workspace workspace(Workspace::Contents::kDataAndRun);
  const ProgramRun train = RunProgram(
      workspace.path(),
      {"train", "run.toml", "--set", "model.sequence_length=600", "--set", "train.run_dir=other"},
      2);
  EXPECT_EQ(train.exit_codes, (std::vector<int>{0, 0})) << train.output;
  const ProgramRun eval =
      RunProgram(workspace.path(), {"eval", "run", "--data", "train", "--sequences", "1"}, 2);
  EXPECT_EQ(eval.exit_codes, (std::vector<int>{0, 0})) << eval.output;
}

}  // namespace
}  // namespace panthera::testing
