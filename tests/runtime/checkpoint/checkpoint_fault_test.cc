// Operations that fail during a save, full disks, and bytes that change afterwards.

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/small_checkpoint.h"
#include "tests/runtime/checkpoint/stepping_file_system.h"
#include "tests/runtime/checkpoint/volatile_file_system.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using testing::Fill;
using ::testing::HasSubstr;
using testing::LoadNewestSmall;
using testing::RankPieces;
using testing::RankWorld;
using testing::SaveSmall;
using testing::SmallTensors;
using testing::Split;
using testing::SteppingFileSystem;
using testing::VolatileFileSystem;

constexpr char kRun[] = "/run";

// The status that every rank gets.
absl::Status SaveFrom(int ranks, absl::FunctionRef<FileSystem&(int)> files_of_rank, int64_t step,
                      uint64_t seed, SaveThread thread = SaveThread::kCaller) {
  std::mutex mutex;
  std::optional<absl::Status> common;
  testing::RunRanks(ranks, [&](RankWorld& world) {
    const absl::Status status = SaveSmall(files_of_rank(world.rank()), world.host(), kRun, step,
                                          seed, {.keep_newest = 1}, thread);
    const std::lock_guard<std::mutex> lock(mutex);
    EXPECT_EQ(common.value_or(status), status);
    common = status;
  });
  return *common;
}

struct Fault {
  int rank;
  SteppingFileSystem::Failure failure;
  SaveThread thread;
};

class FaultTest : public ::testing::TestWithParam<Fault> {};

TEST_P(FaultTest, AnyFailingOperationOfOneRankLeavesTheOldOrTheNewCheckpoint) {
  constexpr int kRanks = 3;
  SelfHostGroup group;
  int failures = 0;
  bool reached = true;
  for (int64_t operation = 0; reached; ++operation) {
    VolatileFileSystem files;
    ASSERT_TRUE(files.MakeDirectories(kRun).ok());
    ASSERT_TRUE(SaveFrom(
                    kRanks, [&](int) -> FileSystem& { return files; }, 1, /*seed=*/1)
                    .ok());
    SteppingFileSystem faulty(files, operation, GetParam().failure);

    const absl::Status saved = SaveFrom(
        kRanks,
        [&](int rank) -> FileSystem& {
          return rank == GetParam().rank ? static_cast<FileSystem&>(faulty) : files;
        },
        2, /*seed=*/2, GetParam().thread);

    reached = faulty.operations() > operation;
    const uint64_t seed = LoadNewestSmall(files, group, kRun);
    EXPECT_TRUE(seed == 1 || seed == 2) << operation;
    if (saved.ok()) {
      EXPECT_EQ(seed, 2U) << operation;
    } else {
      ++failures;
      EXPECT_THAT(std::string(saved.message()),
                  AllOf(HasSubstr("saving /run/checkpoints/step_"), HasSubstr("injected failure")));
    }
    ASSERT_TRUE(SaveFrom(
                    kRanks, [&](int) -> FileSystem& { return files; }, 9, /*seed=*/3)
                    .ok());
    EXPECT_EQ(LoadNewestSmall(files, group, kRun), 3U);
    EXPECT_EQ(files.List("/run/checkpoints")->size(), 1U) << operation;
  }
  EXPECT_GE(failures, GetParam().rank == 0 ? 20 : 4);
}

INSTANTIATE_TEST_SUITE_P(
    Ranks, FaultTest,
    ::testing::Values(Fault{0, SteppingFileSystem::Failure::kOnce, SaveThread::kCaller},
                      Fault{0, SteppingFileSystem::Failure::kDeath, SaveThread::kCaller},
                      Fault{1, SteppingFileSystem::Failure::kOnce, SaveThread::kCaller},
                      Fault{2, SteppingFileSystem::Failure::kDeath, SaveThread::kCaller},
                      Fault{0, SteppingFileSystem::Failure::kOnce, SaveThread::kOwn},
                      Fault{0, SteppingFileSystem::Failure::kDeath, SaveThread::kOwn},
                      Fault{1, SteppingFileSystem::Failure::kOnce, SaveThread::kOwn},
                      Fault{2, SteppingFileSystem::Failure::kDeath, SaveThread::kOwn}));

class FullDiskTest : public ::testing::TestWithParam<VolatileFileSystem::Reserving> {
 protected:
  FullDiskTest() { EXPECT_TRUE(files_.MakeDirectories(kRun).ok()); }

  absl::Status Save(int64_t step, uint64_t seed) {
    return SaveFrom(
        2, [&](int) -> FileSystem& { return files_; }, step, seed);
  }

  VolatileFileSystem files_{testing::Disk(), GetParam()};
  SelfHostGroup group_;
};

TEST_P(FullDiskTest, AtAnyByteTheOldCheckpointStaysAndTheSpaceIsFreed) {
  ASSERT_TRUE(Save(1, /*seed=*/1).ok());
  const int64_t used = files_.disk().used_bytes();

  // The second checkpoint takes as much as the first.
  for (int64_t room = 0; room < used; room += 13) {
    files_.set_capacity(used + room);
    const absl::Status saved = Save(2, /*seed=*/2);

    ASSERT_TRUE(absl::IsResourceExhausted(saved)) << room << " bytes of room: " << saved;
    EXPECT_THAT(std::string(saved.message()),
                AllOf(HasSubstr("saving /run/checkpoints/step_00000002: cannot "),
                      HasSubstr("No space left"), HasSubstr("free some space or quota there")));
    EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 1U) << room;
    EXPECT_EQ(files_.disk().used_bytes(), used) << room;
    EXPECT_EQ(files_.List("/run/checkpoints")->size(), 1U) << room;
  }

  files_.set_capacity(2 * used);
  EXPECT_TRUE(Save(2, /*seed=*/2).ok());
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 2U);
}

TEST_P(FullDiskTest, SpaceThatAKilledSaveTookIsFreedFirst) {
  ASSERT_TRUE(Save(1, /*seed=*/1).ok());
  const int64_t used = files_.disk().used_bytes();
  ASSERT_TRUE(files_.MakeDirectories("/run/checkpoints/step_00000002.tmp").ok());
  ASSERT_TRUE(WriteFile(files_, "/run/checkpoints/step_00000002.tmp/model.safetensors",
                        std::string(static_cast<size_t>(used), 'x'))
                  .ok());
  files_.set_capacity(2 * used);

  const absl::Status saved = Save(3, /*seed=*/2);

  EXPECT_TRUE(saved.ok()) << saved;
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 2U);
}

INSTANTIATE_TEST_SUITE_P(Reserving, FullDiskTest,
                         ::testing::Values(VolatileFileSystem::Reserving::kYes,
                                           VolatileFileSystem::Reserving::kNo));

// A run with checkpoints of steps 10 (seed 1) and 20 (seed 2), of which the newer one is damaged.
class AnyDamageTest : public ::testing::Test {
 protected:
  AnyDamageTest() {
    EXPECT_TRUE(files_.MakeDirectories(kRun).ok());
    for (const int64_t step : {10, 20}) {
      const absl::Status saved = SaveSmall(files_, group_, kRun, step,
                                           static_cast<uint64_t>(step / 10), {.keep_newest = 2});
      EXPECT_TRUE(saved.ok()) << saved;
    }
    const auto entries = files_.List(CheckpointDirectory(kRun, 20));
    for (const DirectoryEntry& entry : *entries) {
      names_.push_back(entry.name);
    }
  }

  static std::string Path(const std::string& name) {
    return CheckpointDirectory(kRun, 20) + "/" + name;
  }

  // The damage is noticed at the latest when the tensors are loaded, with one line that names the
  // step, and the older checkpoint loads.
  void ExpectOlderLoads(FileSystem& files, const std::string& what) {
    const absl::StatusOr<FoundCheckpoint> found = FindNewest(files, group_, kRun);
    ASSERT_TRUE(found.ok()) << what << ": " << found.status();
    ASSERT_TRUE(found->checkpoint.has_value()) << what;
    if (found->checkpoint->step() == 10) {
      ASSERT_EQ(found->skipped.size(), 1U) << what;
      EXPECT_THAT(found->skipped[0], HasSubstr("step_00000020")) << what;
      return;
    }
    RankPieces pieces(SmallTensors(2), 0, 1, Split::kRuns, Fill::kZero);
    const absl::Status loaded =
        LoadPieces(files, group_, *found->checkpoint, "model", pieces.pieces());
    ASSERT_TRUE(IsDamage(loaded)) << what << ": " << loaded;
    EXPECT_THAT(std::string(loaded.message()), HasSubstr("step_00000020")) << what;
    const absl::StatusOr<FoundCheckpoint> older = FindNewest(files, group_, kRun, 20);
    ASSERT_TRUE(older.ok() && older->checkpoint.has_value()) << what;
    EXPECT_EQ(older->checkpoint->step(), 10) << what;
  }

  VolatileFileSystem files_;
  SelfHostGroup group_;
  std::vector<std::string> names_;
};

TEST_F(AnyDamageTest, AFlippedBitInAnyByteOfAnyFileIsNoticed) {
  ASSERT_THAT(names_, ::testing::ElementsAre("manifest.json", "model.safetensors", "state.json"));
  for (const std::string& name : names_) {
    const std::string contents = *ReadFile(files_, Path(name));
    for (size_t byte = 0; byte < contents.size(); ++byte) {
      for (const size_t bit : {byte % 8, (byte + 3) % 8}) {
        std::string damaged = contents;
        damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
        ASSERT_TRUE(WriteFile(files_, Path(name), damaged).ok());
        ExpectOlderLoads(files_, name + " byte " + std::to_string(byte));
      }
    }
    ASSERT_TRUE(WriteFile(files_, Path(name), contents).ok());
  }
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 2U);
}

TEST_F(AnyDamageTest, AFileOfAnyOtherLengthIsNoticed) {
  for (const std::string& name : names_) {
    const std::string contents = *ReadFile(files_, Path(name));
    // The last byte of the manifest is a line end, without which it is whole.
    for (size_t length = 0; length + 1 < contents.size(); length += 7) {
      ASSERT_TRUE(WriteFile(files_, Path(name), contents.substr(0, length)).ok());
      ExpectOlderLoads(files_, name + " cut to " + std::to_string(length));
    }
    ASSERT_TRUE(WriteFile(files_, Path(name), contents + "x").ok());
    ExpectOlderLoads(files_, name + " with one byte more");
    ASSERT_TRUE(WriteFile(files_, Path(name), contents).ok());
  }
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 2U);
}

TEST_F(AnyDamageTest, AnyMissingFileIsNoticed) {
  for (const std::string& name : names_) {
    const std::string contents = *ReadFile(files_, Path(name));
    ASSERT_TRUE(files_.Remove(Path(name)).ok());
    ExpectOlderLoads(files_, "no " + name);
    ASSERT_TRUE(WriteFile(files_, Path(name), contents).ok());
  }
}

TEST_F(AnyDamageTest, DamageToTheNewestOneNeverLetsASaveRemoveTheLastGoodOne) {
  std::string contents = *ReadFile(files_, Path("state.json"));
  contents[0] = 'x';
  ASSERT_TRUE(WriteFile(files_, Path("state.json"), contents).ok());

  // The run goes on from step 10 and saves at step 15, keeping one.
  ASSERT_TRUE(SaveSmall(files_, group_, kRun, 15, /*seed=*/4, {.keep_newest = 1}).ok());
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 4U);
  // The damaged one stays for inspection until the run comes to its step.
  EXPECT_EQ(files_.List("/run/checkpoints")->size(), 2U);
  ASSERT_TRUE(SaveSmall(files_, group_, kRun, 20, /*seed=*/5, {.keep_newest = 1}).ok());
  EXPECT_EQ(LoadNewestSmall(files_, group_, kRun), 5U);
  EXPECT_EQ(files_.List("/run/checkpoints")->size(), 1U);
}

}  // namespace
}  // namespace panthera
