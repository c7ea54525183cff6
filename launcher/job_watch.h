// From what the ranks of a job report, whether the job stands still, and because of whom.
#ifndef PANTHERA_LAUNCHER_JOB_WATCH_H_
#define PANTHERA_LAUNCHER_JOB_WATCH_H_

#include <optional>
#include <string>
#include <vector>

#include "launcher/progress.h"

namespace panthera {

// Why a job must be ended, and how.
struct Verdict {
  int exit_code = 0;
  std::string reason;
};

// A rank that has died is left to its launcher for so long.
inline constexpr double kLauncherPatienceSeconds = 5;

// Rank 0's view of all ranks, itself included. Times are in seconds on one clock that only goes
// forward; the watch begins at 0.
class JobWatch {
 public:
  explicit JobWatch(int ranks) : ranks_(static_cast<size_t>(ranks)) {}

  void Report(int rank, const Activity& activity, double now);
  // The rank is about to end in order: losing it is no death any more.
  void Leave(int rank);
  // The connection to the rank has ended.
  void Lose(int rank, double now);

  // Nothing while the job is well. It is not if a rank has died, or if no rank at all has made
  // progress for `limit` seconds (0: for ever): ranks that wait are well as long as another works.
  //
  // Suspected are, in this order: ranks that no longer report (stopped, or their host is gone);
  // ranks that do not wait for peers while others do; ranks that have made the fewest calls.
  std::optional<Verdict> Judge(double limit, double now) const;

 private:
  struct Rank {
    Activity activity;
    double heard = 0;
    double progressed = 0;
    bool left = false;
    std::optional<double> lost;
  };

  std::string Suspects(double limit, double now) const;

  std::vector<Rank> ranks_;
};

// The verdict of rank `rank` that only knows itself: it has made no progress since `progressed`,
// and rank 0 was last heard at `heard` (nothing: rank 0 cannot be reached at all).
std::optional<Verdict> JudgeAlone(double limit, double progressed, std::optional<double> heard,
                                  double now);

// Of a rank whose connection has ended and which its launcher has outlived.
Verdict DeathOf(int rank);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_JOB_WATCH_H_
