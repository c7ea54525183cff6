// The program is killed between any two file operations of a save.

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/stepping_file_system.h"
#include "tests/runtime/checkpoint/test_tensors.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using testing::Fill;
using testing::LogicalTensor;
using testing::MakeTensor;
using testing::RankPieces;
using testing::Split;
using testing::SteppingFileSystem;
using testing::TempDir;

std::vector<LogicalTensor> Tensors(uint64_t seed) {
  return {MakeTensor("a", {7, 5}, DType::kF32, seed), MakeTensor("b", {9}, DType::kBF16, seed)};
}

absl::Status Save(FileSystem& files, const std::string& run, int64_t step, uint64_t seed) {
  SelfHostGroup group;
  RankPieces pieces(Tensors(seed), 0, 1, Split::kRuns, Fill::kValues);
  CheckpointContents contents;
  contents.step = step;
  contents.sets = {{"model", pieces.pieces(), {}}};
  contents.small_files = {{"state.json", std::to_string(seed)}};
  return SaveCheckpoint(files, group, run, contents, {.keep_newest = 1});
}

// The seed of the newest checkpoint, after its values have been compared; 0 if there is none.
uint64_t LoadNewest(const std::string& run) {
  PosixFileSystem files;
  SelfHostGroup group;
  const absl::StatusOr<FoundCheckpoint> found = FindNewest(files, group, run);
  EXPECT_TRUE(found.ok()) << found.status();
  if (!found.ok() || !found->checkpoint.has_value()) {
    return 0;
  }
  const uint64_t seed = std::stoul(*found->checkpoint->ReadSmallFile(files, "state.json"));
  RankPieces pieces(Tensors(seed), 0, 1, Split::kRuns, Fill::kZero);
  EXPECT_TRUE(LoadPieces(files, group, *found->checkpoint, "model", pieces.pieces()).ok());
  pieces.ExpectValues(Tensors(seed));
  return seed;
}

// Saves checkpoint 1, lets the save of another (seed 2) be killed at every operation in turn, and
// expects the old or the new one every time, and a clean directory after one more save.
void KillEverywhere(int64_t second_step) {
  std::map<uint64_t, int> outcomes;
  bool finished = false;
  for (int64_t operation = 0; !finished; ++operation) {
    TempDir dir;
    SteppingFileSystem whole;
    ASSERT_TRUE(Save(whole, dir.path(), 1, /*seed=*/1).ok());

    SteppingFileSystem dying(operation);
    const absl::Status status = Save(dying, dir.path(), second_step, /*seed=*/2);

    finished = dying.operations() <= operation;
    const uint64_t seed = LoadNewest(dir.path());
    EXPECT_TRUE(seed == 1 || seed == 2) << "killed at operation " << operation;
    EXPECT_TRUE(!status.ok() || seed == 2) << "killed at operation " << operation;
    ++outcomes[seed];

    ASSERT_TRUE(Save(whole, dir.path(), 9, /*seed=*/3).ok()) << operation;
    EXPECT_EQ(LoadNewest(dir.path()), 3U);
    EXPECT_EQ(whole.List(dir.File("checkpoints"))->size(), 1U) << operation;
  }
  // Killed before and after the rename that publishes.
  EXPECT_GT(outcomes[1], 10);
  EXPECT_GT(outcomes[2], 5);
}

TEST(CheckpointCrashTest, TheOldOrTheNewCheckpointLoads) { KillEverywhere(/*second_step=*/2); }

TEST(CheckpointCrashTest, SavingTheSameStepAgainLosesNothing) { KillEverywhere(/*second_step=*/1); }

}  // namespace
}  // namespace panthera
