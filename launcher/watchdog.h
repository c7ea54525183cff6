#ifndef PANTHERA_LAUNCHER_WATCHDOG_H_
#define PANTHERA_LAUNCHER_WATCHDOG_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "launcher/job_watch.h"
#include "launcher/progress.h"
#include "runtime/comm/host_group.h"
#include "runtime/comm/side_channel.h"
#include <sys/types.h>

namespace panthera {

// A thread of every worker that ends the job when it can no longer go on by itself:
//
// * no rank makes progress for the limit (a rank is stopped, or waits for ever): every rank that is
//   alive prints one line that says where it stands, for how long, and which rank is suspected;
//   kExitStalled.
// * a rank has died and its launcher does not end the others (srun does not unless it is asked to):
//   likewise; kExitPeerLost.
// * the launcher itself has died: kExitPeerLost.
//
// Ranks report to rank 0 several times within the limit, through a SideChannel; rank 0 judges, and
// the others judge rank 0 if it falls silent. A rank to which rank 0 is out of reach judges by
// itself alone. Time in which this process does not run (a suspended job) does not count.
class Watchdog {
 public:
  // Begins to watch this rank alone: starting MPI may take for ever too. `progress` must outlive
  // the watchdog. A limit of 0 is none.
  Watchdog(const Progress& progress, std::chrono::seconds limit);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog();

  // From now on watches all ranks, with this limit. Collective.
  void Join(HostGroup& group, std::chrono::seconds limit);
  // Tells the others that this rank is about to end in order.
  void Leave();

 private:
  using Clock = std::chrono::steady_clock;

  // What Join leaves for the thread.
  struct Joined {
    std::unique_ptr<SideChannel> channel;  // null: every rank for itself
    int rank = 0;
    int size = 1;
    double limit = 0;
  };

  void Wake();
  void Run();
  // Waits until it is time to look again or something has happened.
  void Wait();
  void StartTogether(Joined joined);
  void AdvanceClock();
  void CheckLauncher() const;
  void SendReports();
  void SayGoodbye();
  void SendToOthers(const std::string& message);
  void HandleEvents(double seconds);
  void HandleMessage(int from, const std::string& message);
  std::optional<Verdict> Judge() const;
  [[noreturn]] void End(const Verdict& verdict);

  const Progress& progress_;
  const pid_t launcher_;  // 0: there is none
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> leaving_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Both are guarded by the mutex. `wakes_` is the thread's channel.
  std::optional<Joined> joined_;
  SideChannel* wakes_ = nullptr;

  // All below belongs to the thread. Times are in seconds on its own clock.
  std::unique_ptr<SideChannel> channel_;
  int rank_ = 0;
  double limit_;
  Clock::time_point last_look_;
  double now_ = 0;
  double next_report_ = 0;
  int64_t last_beats_ = -1;
  double progressed_ = 0;
  bool said_goodbye_ = false;
  std::optional<JobWatch> job_;  // on rank 0, once the ranks watch each other
  // On the other ranks, about rank 0.
  bool reachable_ = true;
  double heard_ = 0;
  std::optional<double> hub_lost_;
  bool hub_left_ = false;
  std::optional<Verdict> received_;

  std::thread thread_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_WATCHDOG_H_
