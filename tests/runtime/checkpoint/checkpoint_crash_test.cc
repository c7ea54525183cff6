// The program is killed between any two file operations of a save.

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/small_checkpoint.h"
#include "tests/runtime/checkpoint/stepping_file_system.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using testing::LoadNewestSmall;
using testing::SaveSmall;
using testing::SteppingFileSystem;
using testing::TempDir;

// Saves checkpoint 1, lets the save of another (seed 2) be killed at every operation in turn, and
// expects the old or the new one every time, and a clean directory after one more save.
void KillEverywhere(int64_t second_step, SaveThread thread) {
  SelfHostGroup group;
  PosixFileSystem files;
  std::map<uint64_t, int> outcomes;
  bool finished = false;
  for (int64_t operation = 0; !finished; ++operation) {
    TempDir dir;
    SteppingFileSystem whole;
    ASSERT_TRUE(SaveSmall(whole, group, dir.path(), 1, /*seed=*/1).ok());

    SteppingFileSystem dying(operation);
    const absl::Status status =
        SaveSmall(dying, group, dir.path(), second_step, /*seed=*/2, {.keep_newest = 1}, thread);

    finished = dying.operations() <= operation;
    const uint64_t seed = LoadNewestSmall(files, group, dir.path());
    EXPECT_TRUE(seed == 1 || seed == 2) << "killed at operation " << operation;
    EXPECT_TRUE(!status.ok() || seed == 2) << "killed at operation " << operation;
    ++outcomes[seed];

    ASSERT_TRUE(SaveSmall(whole, group, dir.path(), 9, /*seed=*/3).ok()) << operation;
    EXPECT_EQ(LoadNewestSmall(files, group, dir.path()), 3U);
    EXPECT_EQ(whole.List(dir.File("checkpoints"))->size(), 1U) << operation;
  }
  // Killed before and after the rename that publishes.
  EXPECT_GT(outcomes[1], 10);
  EXPECT_GT(outcomes[2], 5);
}

class CheckpointCrashTest : public ::testing::TestWithParam<SaveThread> {};

TEST_P(CheckpointCrashTest, TheOldOrTheNewCheckpointLoads) {
  KillEverywhere(/*second_step=*/2, GetParam());
}

TEST_P(CheckpointCrashTest, SavingTheSameStepAgainLosesNothing) {
  KillEverywhere(/*second_step=*/1, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Threads, CheckpointCrashTest,
                         ::testing::Values(SaveThread::kCaller, SaveThread::kOwn));

}  // namespace
}  // namespace panthera
