// A save whose files are written by a thread of its own.
#include "runtime/checkpoint/checkpoint_save.h"

#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/small_checkpoint.h"
#include "tests/runtime/checkpoint/volatile_file_system.h"
#include "tests/support/hooked_file_system.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::BeginSmall;
using testing::FinishSave;
using ::testing::HasSubstr;
using testing::HookedFileSystem;
using testing::LoadNewestSmall;
using testing::RankPieces;
using testing::RankWorld;
using testing::SaveSmall;
using testing::SmallPieces;
using testing::VolatileFileSystem;

constexpr char kRun[] = "/run";

std::vector<std::string> Contents(FileSystem& files, int64_t step) {
  std::vector<std::string> contents;
  const std::string directory = CheckpointDirectory(kRun, step);
  const absl::StatusOr<std::vector<DirectoryEntry>> entries = files.List(directory);
  EXPECT_TRUE(entries.ok()) << entries.status();
  for (const DirectoryEntry& entry : *entries) {
    contents.push_back(entry.name);
    contents.push_back(*ReadFile(files, directory + "/" + entry.name));
  }
  return contents;
}

class CheckpointSaveTest : public ::testing::Test {
 protected:
  CheckpointSaveTest() { EXPECT_TRUE(files_.MakeDirectories(kRun).ok()); }

  VolatileFileSystem files_;
  SelfHostGroup group_;
};

TEST_F(CheckpointSaveTest, TheCallerGoesOnWhileTheDiskStandsStill) {
  constexpr int kRanks = 3;
  std::atomic<bool> stands_still = true;
  HookedFileSystem slow(files_, [&](const std::string&) {
    while (stands_still) {
      std::this_thread::yield();
    }
    return absl::OkStatus();
  });
  testing::RunRanks(kRanks, [&](RankWorld& world) {
    RankPieces pieces = SmallPieces(world.host(), 1);
    const auto save = BeginSmall(slow, world.host(), kRun, /*step=*/4, 1, pieces, SaveThread::kOwn);
    ASSERT_TRUE(save.ok()) << save.status();
    // Rank 0 makes the files; the others have nothing to do yet.
    EXPECT_EQ((*save)->is_working(), world.rank() == 0);
    EXPECT_FALSE((*save)->is_complete());
    world.Meet();
    stands_still = false;
    EXPECT_TRUE(FinishSave(**save).ok());
  });

  VolatileFileSystem at_once;
  ASSERT_TRUE(at_once.MakeDirectories(kRun).ok());
  testing::RunRanks(kRanks, [&](RankWorld& world) {
    ASSERT_TRUE(SaveSmall(at_once, world.host(), kRun, /*step=*/4, /*seed=*/1).ok());
  });
  EXPECT_EQ(Contents(files_, 4), Contents(at_once, 4));
}

TEST_F(CheckpointSaveTest, EveryRankWritesWhileTheOthersDo) {
  constexpr int kRanks = 3;
  std::mutex mutex;
  std::set<int> writing;
  std::atomic<bool> together = false;
  testing::RunRanks(kRanks, [&](RankWorld& world) {
    // Writes end only once all ranks have begun to write.
    HookedFileSystem files(files_, [&](const std::string& path) {
      if (path.ends_with("model.safetensors")) {
        {
          const std::lock_guard<std::mutex> lock(mutex);
          writing.insert(world.rank());
          together = together || writing.size() == kRanks;
        }
        // Alone rank 0 makes the file.
        while (world.rank() != 0 && !together) {
          std::this_thread::yield();
        }
      }
      return absl::OkStatus();
    });
    EXPECT_TRUE(SaveSmall(files, world.host(), kRun, /*step=*/4, /*seed=*/1, {.keep_newest = 1},
                          SaveThread::kOwn)
                    .ok());
  });
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 1U);
}

TEST_F(CheckpointSaveTest, TheCallersThreadTouchesNoFile) {
  const std::thread::id caller = std::this_thread::get_id();
  HookedFileSystem files(files_, [&](const std::string& path) {
    EXPECT_NE(std::this_thread::get_id(), caller) << path;
    return absl::OkStatus();
  });
  for (const int64_t step : {1, 2}) {
    ASSERT_TRUE(
        SaveSmall(files, group_, kRun, step, /*seed=*/1, {.keep_newest = 1}, SaveThread::kOwn)
            .ok());
  }
  EXPECT_EQ(files_.List("/run/checkpoints")->size(), 1U) << "the older one was removed";
}

TEST_F(CheckpointSaveTest, WithoutAThreadOfItsOwnTheCallersDoesAllOfIt) {
  const std::thread::id caller = std::this_thread::get_id();
  HookedFileSystem files(files_, [&](const std::string& path) {
    EXPECT_EQ(std::this_thread::get_id(), caller) << path;
    return absl::OkStatus();
  });
  ASSERT_TRUE(SaveSmall(files, group_, kRun, 1, /*seed=*/1).ok());
}

TEST_F(CheckpointSaveTest, OneThatIsGivenUpLeavesTheOlderCheckpoint) {
  ASSERT_TRUE(SaveSmall(files_, group_, kRun, 1, /*seed=*/1).ok());
  std::atomic<bool> writes = false;
  std::atomic<bool> given_up = false;
  HookedFileSystem files(files_, [&](const std::string&) {
    while (writes && !given_up) {
      std::this_thread::yield();
    }
    return absl::OkStatus();
  });
  RankPieces pieces = SmallPieces(group_, 2);
  auto save = BeginSmall(files, group_, kRun, /*step=*/2, 2, pieces, SaveThread::kOwn);
  ASSERT_TRUE(save.ok()) << save.status();
  while ((*save)->is_working()) {
    std::this_thread::yield();
  }
  writes = true;
  ASSERT_TRUE((*save)->Advance().ok());
  std::thread disk([&] { given_up = true; });
  save->reset();
  disk.join();

  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 1U);
  ASSERT_TRUE(SaveSmall(files_, group_, kRun, 3, /*seed=*/3).ok());
  EXPECT_EQ(files_.List("/run/checkpoints")->size(), 1U);
}

TEST_F(CheckpointSaveTest, AnErrorOfOneRanksThreadEndsTheSaveOnAllAndFreesTheSpace) {
  testing::RunRanks(2, [&](RankWorld& world) {
    ASSERT_TRUE(SaveSmall(files_, world.host(), kRun, 1, /*seed=*/1).ok());
    HookedFileSystem files(files_, [&](const std::string& path) {
      return world.rank() == 1 && path.ends_with("model.safetensors")
                 ? absl::UnavailableError("the disk is gone")
                 : absl::OkStatus();
    });
    const absl::Status saved =
        SaveSmall(files, world.host(), kRun, 2, /*seed=*/2, {.keep_newest = 1}, SaveThread::kOwn);
    EXPECT_THAT(std::string(saved.message()),
                HasSubstr("saving /run/checkpoints/step_00000002: the disk is gone"));
  });
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 1U);
  EXPECT_EQ(files_.List("/run/checkpoints")->size(), 1U);
}

}  // namespace
}  // namespace panthera
