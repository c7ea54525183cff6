#include "tests/support/rank_harness.h"

#include <omp.h>
#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/comm/thread_communicator.h"

namespace panthera::testing {
namespace {

// Long enough for the slowest test under a sanitizer on a loaded machine.
constexpr std::chrono::seconds kDeadline{240};
constexpr std::chrono::seconds kGrace{20};

// Unwinds the thread's stack like an exception that nobody may catch.
void EndThread() { pthread_exit(nullptr); }

// Counts the ranks that are still running.
class Countdown {
 public:
  explicit Countdown(int count) : count_(count) {}

  void Decrement() {
    const std::scoped_lock lock(mutex_);
    --count_;
    changed_.notify_all();
  }
  // Whether zero was reached within `timeout`.
  bool WaitFor(std::chrono::seconds timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_;
};

// Tells the others that a rank has ended, in whichever way.
class Departure {
 public:
  Departure(ThreadWorld& world, Countdown& running, int rank)
      : world_(world), running_(running), rank_(rank) {}
  Departure(const Departure&) = delete;
  Departure& operator=(const Departure&) = delete;
  ~Departure() {
    world_.Leave(rank_);
    running_.Decrement();
  }

 private:
  ThreadWorld& world_;
  Countdown& running_;
  int rank_;
};

void RunRank(ThreadWorld& world, Countdown& running, int rank, RankBody body) {
  const Departure departure(world, running, rank);
  SetLogRank(rank);
  omp_set_num_threads(1);
  RankWorld rank_world([&world, rank](int color) { return world.CreateHostGroup(rank, color); },
                       [&world, rank](int color) { return world.CreateCommunicator(rank, color); });
  body(rank_world);
}

}  // namespace

RankWorld::RankWorld(HostGroupFactory host_factory, CommunicatorFactory factory, Device device)
    : host_factory_(std::move(host_factory)),
      host_(host_factory_(/*color=*/0)),
      factory_(std::move(factory)),
      communicator_(factory_(/*color=*/0)),
      stream_(device) {}

MeshWorld::MeshWorld(RankWorld& world, int tensor_size)
    : data_(world.Split(world.rank() % tensor_size)),
      tensor_(world.Split(world.rank() / tensor_size)) {}

RankWorld OnDevice(RankWorld& world, Device device) {
  return RankWorld([&world](int color) { return world.SplitHost(color); },
                   [&world](int color) { return world.Split(color); }, device);
}

std::string RunRanksFor(std::chrono::seconds deadline, int size, RankBody body) {
  ThreadWorld world(size, EndThread);
  Countdown running(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] { RunRank(world, running, rank, body); });
  }
  if (!running.WaitFor(deadline)) {
    world.Abort("the deadline has passed: " + world.Describe());
    CHECK(running.WaitFor(kGrace)) << "a rank neither ends nor communicates: " << world.Describe();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return world.abort_reason();
}

void RunRanks(int size, RankBody body) {
  const std::string reason = RunRanksFor(kDeadline, size, body);
  if (!reason.empty()) {
    ADD_FAILURE() << reason;
  }
}

}  // namespace panthera::testing
