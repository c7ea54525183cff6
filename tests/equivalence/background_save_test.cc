// Saves that go on beside training.
#include "launcher/background_save.h"

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "launcher/exit_codes.h"
#include "launcher/training_run.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/support/hooked_file_system.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using testing::HookedFileSystem;
using ::testing::Not;
using testing::RankWorld;
using testing::Tensors;
using testing::TinyRun;

// One rank while it runs, as its disk sees it.
struct RankView {
  int rank = 0;
  std::atomic<int64_t> steps = 0;  // done in this start
  Progress progress;

  // Whether the run waits for a save after that many steps.
  bool waits_after(int64_t step) const {
    return steps >= step && progress.Now().phase == Phase::kSaving;
  }
};

// Called before each operation of a rank's disk on a file of a checkpoint.
using DiskHook = std::function<absl::Status(const RankView& view, const std::string& path)>;
// Called after each step of a rank; whether it asks for a stop.
using StepHook = std::function<bool(const RankView& view, Trainer& trainer)>;

struct Outcome {
  std::vector<absl::StatusOr<int>> exits;  // of Run, in any order
  Tensors tensors;
};

Outcome Start(const TinyRun& run, int ranks, const DiskHook& disk_hook, const StepHook& step_hook,
              int tensor = 1) {
  Outcome outcome;
  std::mutex mutex;
  PosixFileSystem files;
  testing::RunRanks(ranks, [&](RankWorld& rank_world) {
    RankView view;
    view.rank = rank_world.rank();
    World world = testing::WorldOf(rank_world, {}, tensor);
    world.progress = &view.progress;
    RunOptions options = run.options;
    options.parallel.tensor = tensor;
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    const std::string checkpoints = options.train.run_dir + "/checkpoints";
    auto disk = std::make_unique<HookedFileSystem>(files, [&](const std::string& path) {
      return path.starts_with(checkpoints) ? disk_hook(view, path) : absl::OkStatus();
    });
    absl::StatusOr<std::unique_ptr<TrainingRun>> training =
        TrainingRun::Open(options, StartMode::kResume, world, std::move(disk));
    ASSERT_TRUE(training.ok()) << training.status();
    const absl::StatusOr<int> exit = (*training)->Run([&] {
      ++view.steps;
      return step_hook(view, (*training)->trainer());
    });
    const std::lock_guard<std::mutex> lock(mutex);
    outcome.exits.push_back(exit);
    testing::CopyShards((*training)->trainer(), outcome.tensors);
  });
  EXPECT_EQ(outcome.exits.size(), static_cast<size_t>(ranks));
  return outcome;
}

absl::Status SoundDisk(const RankView& /*view*/, const std::string& /*path*/) {
  return absl::OkStatus();
}
bool GoOn(const RankView& /*view*/, Trainer& /*trainer*/) { return false; }

// Lets nothing of a step's checkpoint through before `may_go_on` is true.
DiskHook HoldStep(int64_t step, const std::function<bool(const RankView&)>& may_go_on) {
  return [step, may_go_on](const RankView& view, const std::string& path) {
    while (path.find(absl::StrCat("step_0000000", step)) != std::string::npos && !may_go_on(view)) {
      std::this_thread::yield();
    }
    return absl::OkStatus();
  };
}

class BackgroundSaveTest : public ::testing::Test {
 protected:
  BackgroundSaveTest() {
    run_.options.checkpoint.keep = 9;
    run_.options.train.check_every = 2;
  }

  // The files of a checkpoint and what is in them.
  static std::map<std::string, std::string> Files(const TinyRun& run, int64_t step) {
    PosixFileSystem files;
    std::map<std::string, std::string> contents;
    const std::string directory = CheckpointDirectory(run.options.train.run_dir, step);
    for (const auto& file : std::filesystem::directory_iterator(directory)) {
      contents[file.path().filename().string()] = *ReadFile(files, file.path().string());
    }
    return contents;
  }

  // The names of the checkpoints, in order.
  static std::vector<std::string> Names(const TinyRun& run) {
    PosixFileSystem files;
    std::vector<std::string> names;
    const auto entries = files.List(run.options.train.run_dir + "/checkpoints");
    for (const DirectoryEntry& entry : *entries) {
      names.push_back(entry.name);
    }
    return names;
  }

  // The tensors of the checkpoints that the same run leaves which stands still to save are in the
  // same files, byte for byte.
  void ExpectCheckpointsOfARunThatStandsStill(int ranks, const std::vector<int64_t>& steps,
                                              int tensor = 1) {
    TinyRun still(run_.options.train.steps);
    still.options.checkpoint = run_.options.checkpoint;
    still.options.checkpoint.staging = CheckpointStaging::kNone;
    still.options.model = run_.options.model;
    still.options.train.check_every = run_.options.train.check_every;
    Start(still, ranks, SoundDisk, GoOn, tensor);
    for (const int64_t step : steps) {
      std::map<std::string, std::string> expected = Files(still, step);
      std::map<std::string, std::string> actual = Files(run_, step);
      EXPECT_EQ(actual.size(), expected.size());
      for (const auto& [name, contents] : expected) {
        if (name.ends_with(".safetensors") || name == "config.json") {
          EXPECT_TRUE(actual[name] == contents) << name << " of step " << step;
        }
      }
      EXPECT_TRUE(actual.contains("model.safetensors"));
      EXPECT_TRUE(actual.contains("momentum.safetensors"));
    }
  }

  TinyRun run_{6};
};

TEST_F(BackgroundSaveTest, StepsGoOnWhileASlowDiskWritesWhatTheyWereBefore) {
  run_.options.checkpoint.every = 3;
  run_.options.model.tie = Tie::kSwapHalves;
  std::atomic<bool> held = false;
  // On all ranks the save of step 3 is begun in step 4 at the latest and stands still until the run
  // has taken two steps.
  const Outcome outcome = Start(run_, 3,
                                HoldStep(3,
                                         [&](const RankView& view) {
                                           held = true;
                                           return view.steps >= 5;
                                         }),
                                [&](const RankView& view, Trainer& /*trainer*/) {
                                  while (view.steps == 4 && !held) {
                                    std::this_thread::yield();
                                  }
                                  return false;
                                });
  EXPECT_THAT(outcome.exits, Each(absl::StatusOr<int>(kExitDone)));
  ExpectCheckpointsOfARunThatStandsStill(3, {3, 6});
}

TEST_F(BackgroundSaveTest, MeshesSaveWhatTheyWouldStandingStillAndGoOnFromItBitForBit) {
  for (const auto& [ranks, tensor] : std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {4, 2}}) {
    SCOPED_TRACE(absl::StrCat(ranks, " ranks, ", tensor, " of them tensor-parallel"));
    TinyRun straight(6);
    const Tensors expected = Start(straight, ranks, SoundDisk, GoOn, tensor).tensors;
    TinyRun stopped(6);
    stopped.options.checkpoint.every = 2;
    const Outcome first = Start(
        stopped, ranks, HoldStep(2, [](const RankView& view) { return view.steps >= 3; }),
        [](const RankView& view, Trainer& /*trainer*/) { return view.steps == 3; }, tensor);
    EXPECT_THAT(first.exits, Each(absl::StatusOr<int>(kExitStoppedBySignal)));
    EXPECT_THAT(Names(stopped), ::testing::ElementsAre("step_00000002", "step_00000003"));
    const Outcome second = Start(stopped, ranks, SoundDisk, GoOn, tensor);
    EXPECT_THAT(second.exits, Each(absl::StatusOr<int>(kExitDone)));
    EXPECT_FALSE(expected.empty());
    EXPECT_EQ(second.tensors, expected);
  }
}

TEST_F(BackgroundSaveTest, OneThatIsDueWhileAnotherGoesOnWaitsForIt) {
  run_.options.checkpoint.every = 2;
  // Until the run waits after step 4, in which the next save is due.
  const Outcome outcome =
      Start(run_, 2, HoldStep(2, [](const RankView& view) { return view.waits_after(4); }), GoOn);
  EXPECT_THAT(outcome.exits, Each(absl::StatusOr<int>(kExitDone)));
  ExpectCheckpointsOfARunThatStandsStill(2, {2, 4, 6});
}

TEST_F(BackgroundSaveTest, AStopEndsWhatGoesOnAndThenSaves) {
  run_.options.checkpoint.every = 2;
  const Outcome outcome = Start(
      run_, 2, HoldStep(2, [](const RankView& view) { return view.waits_after(3); }),
      [](const RankView& view, Trainer& /*trainer*/) { return view.rank == 1 && view.steps == 3; });
  EXPECT_THAT(outcome.exits, Each(absl::StatusOr<int>(kExitStoppedBySignal)));
  EXPECT_THAT(Names(run_), ::testing::ElementsAre("step_00000002", "step_00000003"));
  ExpectCheckpointsOfARunThatStandsStill(2, {2});
}

TEST_F(BackgroundSaveTest, TheEndOfTheRunWaitsForItsSave) {
  const Outcome outcome =
      Start(run_, 2, HoldStep(6, [](const RankView& view) { return view.waits_after(6); }), GoOn);
  EXPECT_THAT(outcome.exits, Each(absl::StatusOr<int>(kExitDone)));
  EXPECT_THAT(Names(run_), ::testing::ElementsAre("step_00000006"));
}

TEST_F(BackgroundSaveTest, AWriteThatFailsEndsTheRunOnAllRanksAndLeavesTheOlderCheckpoint) {
  run_.options.checkpoint.every = 2;
  const Outcome outcome = Start(
      run_, 2,
      [](const RankView& view, const std::string& path) {
        return view.rank == 1 && path.find("step_00000004") != std::string::npos
                   ? absl::ResourceExhaustedError("the disk is full")
                   : absl::OkStatus();
      },
      GoOn);
  for (const absl::StatusOr<int>& exit : outcome.exits) {
    EXPECT_TRUE(absl::IsResourceExhausted(exit.status()));
    EXPECT_THAT(std::string(exit.status().message()),
                AllOf(HasSubstr("saving "), HasSubstr("step_00000004: the disk is full"),
                      Not(HasSubstr("\n"))));
  }
  EXPECT_THAT(Names(run_), ::testing::ElementsAre("step_00000002"));
  EXPECT_THAT(Start(run_, 2, SoundDisk, GoOn).exits, Each(absl::StatusOr<int>(kExitDone)));
}

TEST_F(BackgroundSaveTest, ARunThatMustEndEndsItsSaveFirstAndSaysSo) {
  run_.options.checkpoint.every = 2;
  run_.options.train.check_every = 1;
  ::testing::internal::CaptureStderr();
  const Outcome outcome =
      Start(run_, 2, HoldStep(2, [](const RankView& view) { return view.waits_after(3); }),
            [](const RankView& view, Trainer& trainer) {
              if (view.rank == 1 && view.steps == 3) {
                const Tensor values = trainer.instance().params().shard(GroupId{0}).values;
                values.bytes_data()[0] ^= std::byte{1};
              }
              return false;
            });
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(outcome.exits, Each(absl::StatusOr<int>(kExitFlippedBits))) << log;
  EXPECT_THAT(log, HasSubstr("goes on from the newest checkpoint, of step 2"));
  EXPECT_THAT(Names(run_), ::testing::ElementsAre("step_00000002"));
  ExpectCheckpointsOfARunThatStandsStill(2, {2});
}

// Every thirteenth operation after the second of three steps, each of which is saved: from there on
// the disk does nothing more, as if all ranks had been killed.
TEST_F(BackgroundSaveTest, ADiskThatEndsAtAnyOperationLeavesACheckpointToGoOnFrom) {
  const Tensors expected = Start(TinyRun(3), 1, SoundDisk, GoOn).tensors;
  int64_t kills = 0;
  for (bool reached = true; reached; ++kills) {
    TinyRun run(3);
    run.options.checkpoint.every = 1;
    run.options.checkpoint.keep = 1;
    std::atomic<int64_t> operations = 0;
    Start(
        run, 1,
        [&](const RankView& view, const std::string& /*path*/) {
          return view.steps >= 2 && operations++ >= 13 * kills ? absl::UnavailableError("killed")
                                                               : absl::OkStatus();
        },
        GoOn);
    reached = operations > 13 * kills;
    const Outcome resumed = Start(run, 1, SoundDisk, GoOn);
    EXPECT_THAT(resumed.exits, Each(absl::StatusOr<int>(kExitDone))) << kills;
    EXPECT_EQ(resumed.tensors, expected) << kills;
  }
  EXPECT_GT(kills, 4);
}

// The watchdog sees steps while there are some, and the disk when it is waited for.
TEST(BackgroundSaveProgressTest, TheDiskCountsOnlyWhileTheRunWaitsForIt) {
  PosixFileSystem posix;
  testing::TempDir directory;
  testing::RunRanks(1, [&](RankWorld& ranks) {
    Progress progress;
    World world = testing::WorldOf(ranks);
    world.progress = &progress;
    const int64_t before = progress.Now().beats;
    std::atomic<bool> run_waits = false;
    std::atomic<int64_t> awaited = 0;
    // Once the run waits, each of the first operations lasts until the operation shows.
    HookedFileSystem disk(posix, [&](const std::string& /*path*/) {
      if (run_waits && awaited < 2) {
        ++awaited;
        while (progress.Now().beats < before + awaited) {
          std::this_thread::yield();
        }
      }
      return absl::OkStatus();
    });
    BackgroundSave save(disk, world);
    CheckpointContents contents;
    contents.step = 1;
    contents.program = "test";
    ASSERT_EQ(save.Begin(directory.path(), std::move(contents), {}), absl::OkStatus());
    EXPECT_TRUE(save.is_under_way());
    EXPECT_EQ(save.saved_step(), -1);
    while (save.is_working()) {
      std::this_thread::yield();
    }
    EXPECT_EQ(progress.Now().beats, before) << "nobody waits";
    run_waits = true;
    ASSERT_EQ(save.Finish(), absl::OkStatus());
    EXPECT_EQ(awaited, 2);
    EXPECT_FALSE(save.is_under_way());
    EXPECT_EQ(save.saved_step(), 1);
  });
}

}  // namespace
}  // namespace panthera
