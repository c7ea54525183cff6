// A hundred deaths at random moments. After each of them the same command must go on after the
// newest checkpoint on the disk, and a run that has been killed again and again must end with the
// metrics and the weights of one that was left alone, bit for bit.
//
// PANTHERA_KILL_SEED chooses the moments (they also depend on the machine's mood), PANTHERA_KILLS
// how many.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
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

using Clock = std::chrono::steady_clock;

constexpr int kRanks = 2;
constexpr int64_t kSteps = 240;
constexpr int kByLauncher = 1;  // mpirun's own code after a signal

enum class Kill { kRank, kAllRanks, kMpirun, kTerminateMpirun, kUsr1, kTerminateRank, kStopRank };

struct KillKind {
  Kill kill;
  const char* name;
  int weight;
  // Besides kExitDone, for a job that was faster, and death by the signal itself, for one that did
  // not listen yet.
  std::vector<int> exit_codes;
};

const std::vector<KillKind>& Kinds() {
  static const auto& kinds = *new std::vector<KillKind>{
      {Kill::kRank, "kill -9 of a rank", 4, {128 + SIGKILL, kExitPeerLost}},
      {Kill::kAllRanks, "kill -9 of all ranks", 3, {128 + SIGKILL}},
      {Kill::kMpirun, "kill -9 of mpirun", 3, {128 + SIGKILL}},
      {Kill::kTerminateMpirun, "SIGTERM to mpirun", 2, {kByLauncher, kExitStoppedBySignal}},
      {Kill::kUsr1, "SIGUSR1 to mpirun", 3, {kExitStoppedBySignal}},
      {Kill::kTerminateRank, "SIGTERM to a rank", 3, {kExitStoppedBySignal}},
      {Kill::kStopRank, "SIGSTOP of a rank", 1, {kExitStalled}}};
  return kinds;
}

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::stoll(text);
}

struct Tally {
  std::map<std::string, int> by_kind;
  std::map<std::string, int> by_phase;
  int resumes = 0;
  int finished_runs = 0;
  double slowest_end = 0;
  std::string slowest_kind;
};

class RandomKillsTest : public ::testing::Test {
 protected:
  RandomKillsTest()
      : run_(kSteps),
        config_(run_.directory() + "/run.toml"),
        seed_(FromEnvironment("PANTHERA_KILL_SEED", std::random_device()())),
        random_(static_cast<uint64_t>(seed_)) {
    run_.options.checkpoint.every = 1;
    run_.options.eval.every = 3;
    run_.options.train.stall_seconds = 4;
    run_.options.device.kind = DeviceChoice::kCpu;
    std::ofstream(config_) << PrintConfig(run_.options);
  }

  int64_t Draw(int64_t below) {
    return std::uniform_int_distribution<int64_t>(0, below - 1)(random_);
  }

  std::unique_ptr<Job> Start(const std::string& run_dir) {
    return std::make_unique<Job>(JobOptions{.ranks = kRanks,
                                            .config = config_,
                                            .settings = {absl::StrCat("train.run_dir=", run_dir)}},
                                 absl::StrCat(run_.directory(), "/job_", ++num_jobs_));
  }

  const KillKind& DrawKind() {
    int64_t total = 0;
    for (const KillKind& kind : Kinds()) {
      total += kind.weight;
    }
    int64_t draw = Draw(total);
    for (const KillKind& kind : Kinds()) {
      draw -= kind.weight;
      if (draw < 0) {
        return kind;
      }
    }
    return Kinds().back();
  }

  // Half of the time at any time since the start, otherwise after some steps and a moment.
  void WaitForMoment(Job& job, Kill kill, const std::string& run_dir) {
    const auto wait = [&job](std::chrono::microseconds time) {
      const Clock::time_point end = Clock::now() + time;
      while (Clock::now() < end && !job.WaitForEnd(std::chrono::seconds(0)).has_value()) {
      }
    };
    // Before the configuration is read the limit is the default one: many minutes.
    if (kill != Kill::kStopRank && Draw(2) == 0) {
      wait(std::chrono::microseconds(Draw(2 * start_microseconds_)));
      return;
    }
    const int64_t target = CountMetricsLines(run_dir) + 1 + Draw(40);
    const int64_t resumed_at = NewestCheckpoint(run_dir);
    (void)WaitUntil([&] {
      return job.WaitForEnd(std::chrono::seconds(0)).has_value() ||
             (CountMetricsLines(run_dir) >= target && NewestCheckpoint(run_dir) > resumed_at);
    });
    wait(std::chrono::microseconds(Draw(20'000)));
  }

  // The process that is hit; 0 if there is none.
  static pid_t Strike(Job& job, Kill kill, int64_t which) {
    const std::map<int, pid_t> ranks = job.Ranks();
    const auto chosen = ranks.find(static_cast<int>(which));
    const pid_t rank = chosen == ranks.end() ? 0 : chosen->second;
    const auto send = [](pid_t pid, int signal) {
      if (pid != 0) {
        ::kill(pid, signal);
      }
    };
    switch (kill) {
      case Kill::kRank:
        send(rank, SIGKILL);
        return rank;
      case Kill::kAllRanks:
        for (const auto& [number, pid] : ranks) {
          send(pid, SIGKILL);
        }
        return ranks.empty() ? 0 : ranks.begin()->second;
      case Kill::kMpirun:
        send(job.mpirun(), SIGKILL);
        return job.mpirun();
      case Kill::kTerminateMpirun:
        send(job.mpirun(), SIGTERM);
        return job.mpirun();
      case Kill::kUsr1:
        send(job.mpirun(), SIGUSR1);
        return job.mpirun();
      case Kill::kTerminateRank:
        send(rank, SIGTERM);
        return rank;
      case Kill::kStopRank:
        send(rank, SIGSTOP);
        return rank;
    }
    return 0;
  }

  static std::string PhaseOf(Job& job, const std::string& run_dir) {
    const std::string output = job.Output();
    if (output.find("steps done; results") != std::string::npos) {
      return "ending";
    }
    if (output.find("going on after step") == std::string::npos &&
        output.find("a new run") == std::string::npos) {
      return "start-up";
    }
    return SaveIsUnderWay(run_dir) ? "saving" : "training or evaluation";
  }

  // What the job says about where it began must be what was on the disk.
  void CheckBegin(Job& job, int64_t newest) {
    const std::string output = job.Output();
    const std::string marker = "going on after step ";
    const size_t found = output.find(marker);
    if (found != std::string::npos) {
      EXPECT_EQ(std::stoll(output.substr(found + marker.size())), newest) << output;
      ++tally_.resumes;
    } else if (output.find("a new run") != std::string::npos) {
      EXPECT_EQ(newest, 0) << output;
    }
  }

  void KillOnce(const std::string& run_dir) {
    const int64_t newest_before = NewestCheckpoint(run_dir);
    const KillKind& kind = DrawKind();
    std::unique_ptr<Job> job = Start(run_dir);
    WaitForMoment(*job, kind.kill, run_dir);
    const std::string phase = PhaseOf(*job, run_dir);
    const pid_t hit = Strike(*job, kind.kill, Draw(kRanks));
    const Clock::time_point begin = Clock::now();
    if (hit == 0) {
      // There was no such rank yet, or no more.
      kill(job->mpirun(), SIGTERM);
    }
    const std::optional<int> exit_code = job->WaitForEnd();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    ASSERT_TRUE(exit_code.has_value()) << kind.name << " in " << phase << "\n" << job->Output();
    const std::string name = hit == 0 ? "SIGTERM, no rank there" : kind.name;
    ++tally_.by_kind[name];
    ++tally_.by_phase[phase];
    if (seconds > tally_.slowest_end) {
      tally_.slowest_end = seconds;
      tally_.slowest_kind = absl::StrCat(name, " in ", phase);
    }
    const bool by_signal = *exit_code > 128 || *exit_code == kByLauncher;
    const bool expected =
        std::count(kind.exit_codes.begin(), kind.exit_codes.end(), *exit_code) > 0;
    EXPECT_TRUE(expected || *exit_code == kExitDone || hit == 0 ||
                (by_signal && phase == "start-up") || phase == "ending")
        << kind.name << " in " << phase << " ended with " << *exit_code << "\n"
        << job->Output();
    CheckBegin(*job, newest_before);
    EXPECT_GE(NewestCheckpoint(run_dir), newest_before);
  }

  // Without kills to the end.
  void Finish(const std::string& run_dir) {
    const int64_t newest = NewestCheckpoint(run_dir);
    std::unique_ptr<Job> job = Start(run_dir);
    ASSERT_EQ(job->WaitForEnd(std::chrono::seconds(300)), kExitDone) << job->Output();
    CheckBegin(*job, newest);
    EXPECT_TRUE(Leftovers(run_dir).empty());
  }

  void ExpectSameAs(const std::string& straight, const std::string& run_dir) {
    EXPECT_EQ(TimelessMetrics(run_dir), TimelessMetrics(straight));
    EXPECT_TRUE(TensorFiles(run_dir, kSteps) == TensorFiles(straight, kSteps)) << run_dir;
    ++tally_.finished_runs;
  }

  void PrintTally() const {
    std::cout << "kills by kind:\n";
    for (const auto& [name, count] : tally_.by_kind) {
      std::cout << "  " << count << "  " << name << "\n";
    }
    std::cout << "phase hit:\n";
    for (const auto& [name, count] : tally_.by_phase) {
      std::cout << "  " << count << "  " << name << "\n";
    }
    std::cout << "slowest end: " << tally_.slowest_end << " s (" << tally_.slowest_kind << ")\n"
              << "resumes: " << tally_.resumes << ", runs compared: " << tally_.finished_runs
              << "\n";
  }

  TinyRun run_;
  std::string config_;
  int64_t seed_;
  std::mt19937_64 random_;
  int num_jobs_ = 0;
  int64_t start_microseconds_ = 1;
  Tally tally_;
};

TEST_F(RandomKillsTest, RunThatIsKilledAgainAndAgainEndsAsOneThatWasLeftAlone) {
  const int64_t kills = FromEnvironment("PANTHERA_KILLS", 100);
  std::cout << "PANTHERA_KILL_SEED=" << seed_ << " PANTHERA_KILLS=" << kills << std::endl;
  const std::string straight = run_.directory() + "/straight";
  {
    const Clock::time_point begin = Clock::now();
    std::unique_ptr<Job> job = Start(straight);
    ASSERT_TRUE(job->WaitForOutput("a new run")) << job->Output();
    start_microseconds_ =
        std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
    ASSERT_EQ(job->WaitForEnd(std::chrono::seconds(300)), kExitDone) << job->Output();
  }
  int runs = 1;
  const auto run_dir = [&] { return absl::StrCat(run_.directory(), "/run_", runs); };
  for (int64_t i = 0; i < kills && !HasFailure(); ++i) {
    if (NewestCheckpoint(run_dir()) == kSteps) {
      ASSERT_NO_FATAL_FAILURE(Finish(run_dir()));
      ExpectSameAs(straight, run_dir());
      ++runs;
    }
    ASSERT_NO_FATAL_FAILURE(KillOnce(run_dir())) << "kill " << i;
  }
  ASSERT_NO_FATAL_FAILURE(Finish(run_dir()));
  ExpectSameAs(straight, run_dir());
  PrintTally();
}

}  // namespace
}  // namespace panthera::testing
