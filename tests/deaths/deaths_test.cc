// Signals and deaths at chosen moments: the job ends in bounded time with a documented exit code,
// and the same command goes on where it was.
#include <signal.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "launcher/config_text.h"
#include "launcher/exit_codes.h"
#include "tests/deaths/job.h"
#include "tests/deaths/run_record.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kKilled = 128 + SIGKILL;
// More than any of these runs takes.
constexpr int64_t kManySteps = 1'000'000;

class DeathsTest : public ::testing::Test {
 protected:
  DeathsTest() : run_(kManySteps), config_(run_.directory() + "/run.toml") {
    run_.options.checkpoint.every = 2;
    // An emulated GPU is no place to run the whole program.
    run_.options.device.kind = DeviceChoice::kCpu;
    std::ofstream(config_) << PrintConfig(run_.options);
  }

  std::unique_ptr<Job> Start(std::vector<std::string> settings = {}, const std::string& gate = "",
                             std::vector<std::string> mpirun_options = {}, int ranks = 2) {
    return std::make_unique<Job>(JobOptions{.ranks = ranks,
                                            .config = config_,
                                            .settings = std::move(settings),
                                            .mpirun_options = std::move(mpirun_options),
                                            .gate = gate},
                                 absl::StrCat(run_.directory(), "/job_", ++num_jobs_));
  }

  // Starts and waits until some steps have been made after those that the run already has.
  std::unique_ptr<Job> StartTraining(const std::vector<std::string>& settings = {},
                                     const std::vector<std::string>& mpirun_options = {},
                                     int ranks = 2) {
    const int64_t before = CountMetricsLines(run_dir());
    std::unique_ptr<Job> job = Start(settings, "", mpirun_options, ranks);
    (void)job->WaitForRanks();
    EXPECT_TRUE(WaitUntil([&] { return CountMetricsLines(run_dir()) > before + 3; }))
        << job->Output();
    return job;
  }

  // The same command goes on after the newest checkpoint, and nothing half done stays behind.
  void ExpectGoesOn() {
    const int64_t newest = NewestCheckpoint(run_dir());
    std::unique_ptr<Job> job = Start({absl::StrCat("train.steps=", newest + 2)});
    EXPECT_EQ(job->WaitForEnd(), kExitDone) << job->Output();
    EXPECT_THAT(
        job->Output(),
        HasSubstr(newest == 0 ? "a new run" : absl::StrCat("going on after step ", newest)));
    EXPECT_EQ(CountMetricsLines(run_dir()), newest + 2);
    EXPECT_EQ(NewestCheckpoint(run_dir()), newest + 2);
    EXPECT_THAT(Leftovers(run_dir()), IsEmpty());
  }

  const std::string& run_dir() const { return run_.options.train.run_dir; }

  TinyRun run_;
  std::string config_;
  int num_jobs_ = 0;
};

TEST_F(DeathsTest, SignalDuringStartUpStopsBeforeTheFirstStep) {
  for (const int signal : {SIGUSR1, SIGTERM}) {
    std::unique_ptr<Job> job = Start({}, "/train.bin");
    ASSERT_TRUE(job->WaitForGate()) << job->Output();
    kill(job->WaitForRanks().at(0), signal);
    job->OpenGate();
    EXPECT_EQ(job->WaitForEnd(), kExitStoppedBySignal) << job->Output();
    EXPECT_THAT(job->Output(), HasSubstr("asked to stop before the first step"));
    EXPECT_EQ(CountMetricsLines(run_dir()), 0);
  }
  ExpectGoesOn();
}

TEST_F(DeathsTest, SignalWhileTrainingSavesTheStepAndStops) {
  std::unique_ptr<Job> job = StartTraining();
  kill(job->mpirun(), SIGUSR1);
  EXPECT_EQ(job->WaitForEnd(), kExitStoppedBySignal) << job->Output();
  EXPECT_EQ(NewestCheckpoint(run_dir()), CountMetricsLines(run_dir()));

  // SIGTERM to one rank is enough.
  job = StartTraining();
  kill(job->WaitForRanks().at(1), SIGTERM);
  EXPECT_EQ(job->WaitForEnd(), kExitStoppedBySignal) << job->Output();
  EXPECT_EQ(NewestCheckpoint(run_dir()), CountMetricsLines(run_dir()));
  ExpectGoesOn();
}

TEST_F(DeathsTest, SignalsWhileSavingDoNoHarm) {
  for (const std::string staging : {"none", "copy"}) {
    // The first save of a start.
    const int64_t saved = NewestCheckpoint(run_dir()) / 2 * 2 + 2;
    std::unique_ptr<Job> job = Start({absl::StrCat("checkpoint.staging=", staging)},
                                     absl::StrCat("step_0000000", saved, ".tmp/manifest.json"));
    ASSERT_TRUE(job->WaitForGate()) << job->Output();
    for (const auto& [rank, pid] : job->WaitForRanks()) {
      kill(pid, SIGTERM);
      kill(pid, SIGTERM);
      kill(pid, SIGUSR1);
    }
    job->OpenGate();
    EXPECT_EQ(job->WaitForEnd(), kExitStoppedBySignal) << job->Output();
    // The save is finished, and the stop comes after the next step; beside a save the run may have
    // come to the next one that is due, and the stop after the step that follows.
    const int64_t newest = NewestCheckpoint(run_dir());
    EXPECT_EQ(newest, CountMetricsLines(run_dir()));
    EXPECT_GT(newest, saved);
    EXPECT_LE(newest, staging == "none" ? saved + 1 : saved + 3);
    EXPECT_FALSE(TensorFiles(run_dir(), newest).empty());
    ExpectGoesOn();
  }
}

// Rank 0 writes the manifest; the other waits for it.
TEST_F(DeathsTest, KilledWhileSavingTheRunGoesOnBitForBit) {
  const std::string straight = run_.directory() + "/straight";
  std::unique_ptr<Job> job = Start({"train.steps=8", absl::StrCat("train.run_dir=", straight)});
  ASSERT_EQ(job->WaitForEnd(), kExitDone) << job->Output();

  for (const int rank : {0, 1}) {
    // The run has come to step 2 at the first kill and to step 4 at the second.
    const std::string gate = absl::StrCat("step_0000000", 4 + 2 * rank, ".tmp/manifest.json");
    job = Start({"train.steps=8"}, gate);
    ASSERT_TRUE(job->WaitForGate()) << job->Output();
    kill(job->WaitForRanks().at(rank), SIGKILL);
    EXPECT_EQ(job->WaitForEnd(), kKilled) << job->Output();
    EXPECT_EQ(NewestCheckpoint(run_dir()), 2 + 2 * rank);
    EXPECT_TRUE(SaveIsUnderWay(run_dir()));
  }
  // A line that was being written.
  std::ofstream(run_dir() + "/metrics.jsonl", std::ios::app) << "{\"step\":7,\"lo";

  job = Start({"train.steps=8"});
  EXPECT_EQ(job->WaitForEnd(), kExitDone) << job->Output();
  EXPECT_THAT(job->Output(), HasSubstr("going on after step 4"));
  EXPECT_THAT(Leftovers(run_dir()), IsEmpty());
  EXPECT_EQ(TimelessMetrics(run_dir()), TimelessMetrics(straight));
  EXPECT_TRUE(TensorFiles(run_dir(), 8) == TensorFiles(straight, 8));
}

TEST_F(DeathsTest, KilledRankEndsTheJob) {
  std::unique_ptr<Job> job = StartTraining();
  kill(job->WaitForRanks().at(0), SIGKILL);
  EXPECT_EQ(job->WaitForEnd(), kKilled) << job->Output();
  ExpectGoesOn();
}

// With --enable-recovery mpirun does what srun does without --kill-on-bad-exit: nothing.
TEST_F(DeathsTest, KilledRankEndsTheOthersThoughTheirLauncherDoesNot) {
  for (const int rank : {0, 1}) {
    std::unique_ptr<Job> job = Start({}, "step_00000002.tmp/manifest.json", {"--enable-recovery"});
    ASSERT_TRUE(job->WaitForGate()) << job->Output();
    kill(job->WaitForRanks().at(rank), SIGKILL);
    EXPECT_NE(job->WaitForEnd(), std::nullopt) << job->Output();
    EXPECT_THAT(job->Output(), HasSubstr(absl::StrCat("rank ", rank, " has died")));
    EXPECT_THAT(job->Output(), HasSubstr(absl::StrCat("exit code ", kExitPeerLost)));
  }
  ExpectGoesOn();
}

// In the middle of a step, in which the other waits for its part of a layer. What goes on then are
// two data-parallel ranks.
TEST_F(DeathsTest, KilledTensorRankEndsTheOthersThoughTheirLauncherDoesNot) {
  std::unique_ptr<Job> job = StartTraining({"parallel.tensor=2"}, {"--enable-recovery"});
  kill(job->WaitForRanks().at(1), SIGKILL);
  EXPECT_NE(job->WaitForEnd(), std::nullopt) << job->Output();
  EXPECT_THAT(job->Output(), HasSubstr("rank 1 has died"));
  EXPECT_THAT(job->Output(), HasSubstr(absl::StrCat("exit code ", kExitPeerLost)));
  ExpectGoesOn();
}

TEST_F(DeathsTest, ATensorParallelJobThatIsStoppedGoesOnWithAnyMesh) {
  const std::string heads = "model.heads=4";
  std::unique_ptr<Job> job = StartTraining({heads, "parallel.tensor=2"}, {}, 4);
  kill(job->WaitForRanks().at(3), SIGTERM);
  EXPECT_EQ(job->WaitForEnd(), kExitStoppedBySignal) << job->Output();
  int64_t done = NewestCheckpoint(run_dir());
  EXPECT_EQ(done, CountMetricsLines(run_dir()));
  struct Mesh {
    int ranks;
    int tensor;
    const char* change;
  };
  for (const Mesh& mesh :
       {Mesh{4, 4, "2 -> 4"}, Mesh{4, 1, "4 -> 1"}, Mesh{2, 2, "1 -> 2"}, Mesh{1, 1, "2 -> 1"}}) {
    job = Start({heads, absl::StrCat("parallel.tensor=", mesh.tensor),
                 absl::StrCat("train.steps=", done + 1)},
                "", {}, mesh.ranks);
    EXPECT_EQ(job->WaitForEnd(), kExitDone) << job->Output();
    EXPECT_THAT(job->Output(), HasSubstr(absl::StrCat("going on after step ", done)));
    EXPECT_THAT(job->Output(), HasSubstr(absl::StrCat("changed since the last start: ",
                                                      "parallel.tensor: ", mesh.change)));
    EXPECT_EQ(NewestCheckpoint(run_dir()), ++done);
  }
}

TEST_F(DeathsTest, KilledLauncherEndsTheRanks) {
  std::unique_ptr<Job> job = StartTraining();
  kill(job->mpirun(), SIGKILL);
  EXPECT_EQ(job->WaitForEnd(), kKilled) << job->Output();
  ExpectGoesOn();
}

TEST_F(DeathsTest, StoppedRankIsNamedAndEndsTheJob) {
  for (const int rank : {0, 1}) {
    std::unique_ptr<Job> job = StartTraining({"train.stall_seconds=3"});
    kill(job->WaitForRanks().at(rank), SIGSTOP);
    EXPECT_EQ(job->WaitForEnd(), kExitStalled) << job->Output();
    EXPECT_THAT(job->Output(),
                HasSubstr(absl::StrCat("suspected: rank ", rank, ", which has not reported for")));
    EXPECT_THAT(job->Output(), HasSubstr(", waiting in "));
  }
  ExpectGoesOn();
}

// The run goes on beside the save of step 2 until it must wait for it.
TEST_F(DeathsTest, RankThatWorksForEverIsNamedByThoseThatWait) {
  std::unique_ptr<Job> job = Start({"train.stall_seconds=3"}, "step_00000002.tmp/manifest.json");
  ASSERT_TRUE(job->WaitForGate()) << job->Output();
  EXPECT_EQ(job->WaitForEnd(), kExitStalled) << job->Output();
  EXPECT_THAT(job->Output(), HasSubstr("suspected: rank 0, in save after step 4, at work"));
  EXPECT_THAT(job->Output(), Not(HasSubstr("suspected: rank 1")));
  ExpectGoesOn();
}

TEST_F(DeathsTest, TerminatedLauncherLosesNoCheckpoint) {
  std::unique_ptr<Job> job = StartTraining();
  const int64_t newest = NewestCheckpoint(run_dir());
  kill(job->mpirun(), SIGTERM);
  // mpirun gives the ranks a second and has an exit code of its own.
  EXPECT_NE(job->WaitForEnd(), std::nullopt) << job->Output();
  EXPECT_GE(NewestCheckpoint(run_dir()), newest);
  ExpectGoesOn();
}

}  // namespace
}  // namespace panthera::testing
