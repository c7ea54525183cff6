// The power fails, or all ranks are killed, at any moment of a save.

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "runtime/base/philox.h"
#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/small_checkpoint.h"
#include "tests/runtime/checkpoint/volatile_file_system.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::Disk;
using testing::LoadNewestSmall;
using testing::RankWorld;
using testing::SaveSmall;
using testing::VolatileFileSystem;

constexpr char kRun[] = "/runs/first";
constexpr int kSubsets = 16;

// Calls `visit` with what a power failure can leave of a disk: of the changes that were not synced
// all, none, those up to any one, and some sets at random.
template <typename Visit>
void ForEachRemainder(const Disk& disk, uint64_t seed, Visit visit) {
  const int64_t pending = disk.pending();
  for (int64_t first_lost = 0; first_lost <= pending; ++first_lost) {
    visit(disk.AfterPowerFailure([&](int64_t change) { return change < first_lost; }));
  }
  for (uint64_t subset = 0; subset < kSubsets && pending > 1; ++subset) {
    visit(disk.AfterPowerFailure([&](int64_t change) {
      return Philox4x32(seed, static_cast<uint64_t>(change), subset).value[0] % 2 == 0;
    }));
  }
}

uint64_t NewestOn(const Disk& disk) {
  VolatileFileSystem files(disk);
  SelfHostGroup group;
  return LoadNewestSmall(files, group, kRun);
}

// Saves once more on what was left, and expects nothing but the new checkpoint.
void ExpectGoesOn(const Disk& disk) {
  VolatileFileSystem files(disk);
  SelfHostGroup group;
  const absl::Status saved = SaveSmall(files, group, kRun, /*step=*/9, /*seed=*/3);
  ASSERT_TRUE(saved.ok()) << saved;
  EXPECT_EQ(LoadNewestSmall(files, group, kRun), 3U);
  EXPECT_EQ(files.List(std::string(kRun) + "/checkpoints")->size(), 1U);
}

// A run with a checkpoint (seed 1) at step 1 whose `ranks` ranks then save another (seed 2).
struct Case {
  int ranks;
  int64_t second_step;
  SaveThread thread = SaveThread::kCaller;
};

class PowerTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(files_.MakeDirectories(kRun).ok());
    Save(1, /*seed=*/1);
    files_.RecordHistory();
    Save(GetParam().second_step, /*seed=*/2);
  }

  void Save(int64_t step, uint64_t seed) {
    testing::RunRanks(GetParam().ranks, [&](RankWorld& world) {
      const absl::Status saved =
          SaveSmall(files_, world.host(), kRun, step, seed, {.keep_newest = 1}, GetParam().thread);
      EXPECT_TRUE(saved.ok()) << saved;
    });
  }

  VolatileFileSystem files_;
};

TEST_P(PowerTest, AFailureDuringASaveLeavesTheOldOrTheNewCheckpoint) {
  std::map<uint64_t, int> outcomes;
  for (size_t moment = 0; moment < files_.history().size(); ++moment) {
    bool is_first = true;
    ForEachRemainder(files_.history()[moment], moment, [&](const Disk& left) {
      const uint64_t seed = NewestOn(left);
      EXPECT_TRUE(seed == 1 || seed == 2) << "moment " << moment << " of the save";
      ++outcomes[seed];
      if (is_first) {
        ExpectGoesOn(left);
      }
      is_first = false;
    });
  }
  // Failures before and after the rename that publishes.
  EXPECT_GT(outcomes[1], 300);
  EXPECT_GT(outcomes[2], 30);
}

TEST_P(PowerTest, AFailureAfterASaveKeepsTheNewCheckpoint) {
  ForEachRemainder(files_.disk(), 0, [&](const Disk& left) { EXPECT_EQ(NewestOn(left), 2U); });
}

TEST_P(PowerTest, KillingAllRanksBetweenAnyTwoOperationsLeavesTheOldOrTheNewCheckpoint) {
  for (size_t moment = 0; moment < files_.history().size(); ++moment) {
    // The system goes on, so that nothing is lost that was done.
    const Disk left = files_.history()[moment].AfterPowerFailure([](int64_t) { return true; });
    const uint64_t seed = NewestOn(left);
    EXPECT_TRUE(seed == 1 || seed == 2) << "moment " << moment << " of the save";
    ExpectGoesOn(left);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Saves, PowerTest,
    ::testing::Values(Case{.ranks = 1, .second_step = 2}, Case{.ranks = 1, .second_step = 1},
                      Case{.ranks = 3, .second_step = 2}, Case{.ranks = 3, .second_step = 1},
                      Case{.ranks = 1, .second_step = 2, .thread = SaveThread::kOwn},
                      Case{.ranks = 3, .second_step = 1, .thread = SaveThread::kOwn}),
    [](const ::testing::TestParamInfo<Case>& save) {
      return std::to_string(save.param.ranks) + "Ranks" +
             (save.param.second_step == 1 ? "SameStep" : "NextStep") +
             (save.param.thread == SaveThread::kOwn ? "OwnThread" : "");
    });

// A save is killed, a later start saves the same step again, and then the power fails: what the
// killed program did without syncing it must not be built upon.
TEST(KilledSaveTest, IsNothingThatAPowerFailureDuringTheNextSaveCanUndo) {
  for (const bool has_older : {false, true}) {
    VolatileFileSystem files;
    SelfHostGroup group;
    ASSERT_TRUE(files.MakeDirectories(kRun).ok());
    if (has_older) {
      ASSERT_TRUE(SaveSmall(files, group, kRun, /*step=*/1, /*seed=*/1).ok());
    }
    files.RecordHistory();
    ASSERT_TRUE(SaveSmall(files, group, kRun, /*step=*/1, /*seed=*/2).ok());
    for (size_t killed = 0; killed < files.history().size(); ++killed) {
      VolatileFileSystem again(files.history()[killed]);
      again.RecordHistory();
      ASSERT_TRUE(SaveSmall(again, group, kRun, /*step=*/1, /*seed=*/3).ok());

      for (size_t moment = 0; has_older && moment < again.history().size(); ++moment) {
        const Disk& disk = again.history()[moment];
        for (const int64_t first_lost : {int64_t{0}, disk.pending() / 2, disk.pending() - 1}) {
          const auto until = [&](int64_t change) { return change < first_lost; };
          const auto from = [&](int64_t change) { return change >= first_lost; };
          EXPECT_NE(NewestOn(disk.AfterPowerFailure(until)), 0U) << killed << ", " << moment;
          EXPECT_NE(NewestOn(disk.AfterPowerFailure(from)), 0U) << killed << ", " << moment;
        }
      }
      EXPECT_EQ(NewestOn(again.disk().AfterPowerFailure([](int64_t) { return false; })), 3U)
          << killed;
    }
  }
}

TEST(FirstSaveTest, AFailureAfterTheFirstSaveOfARunKeepsItsCheckpoint) {
  VolatileFileSystem files;
  SelfHostGroup group;
  ASSERT_TRUE(files.MakeDirectories(kRun).ok());
  ASSERT_TRUE(SaveSmall(files, group, kRun, /*step=*/1, /*seed=*/1).ok());

  ForEachRemainder(files.disk(), 0, [&](const Disk& left) { EXPECT_EQ(NewestOn(left), 1U); });
}

}  // namespace
}  // namespace panthera
