#ifndef PANTHERA_RUNTIME_COMM_THREAD_COMMUNICATOR_H_
#define PANTHERA_RUNTIME_COMM_THREAD_COMMUNICATOR_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"

namespace panthera {

class ThreadGroup;

// A job whose ranks are threads of one process, for tests of distributed code. Owns what the ranks
// share; must outlive the communicators and groups it hands out. Ranks may share a GPU; the host
// waits for every call's data.
//
// A rank is never left waiting for a peer that cannot come: when ranks issue different calls, when
// a rank has left that others wait for, or after Abort, every rank that waits or makes a call is
// ended by `end_thread`. A rank whose data peers are reading finishes that call first.
class ThreadWorld {
 public:
  // Ends the calling thread, unwinding its stack; must not return.
  using EndThread = void (*)();

  ThreadWorld(int size, EndThread end_thread);
  ThreadWorld(const ThreadWorld&) = delete;
  ThreadWorld& operator=(const ThreadWorld&) = delete;
  ~ThreadWorld();

  int size() const { return size_; }

  // The end for world rank `rank`, to be used by that rank's thread, of a communicator (a group)
  // over all ranks that pass the same color, in the order of their world ranks. Every rank must
  // make the same sequence of these calls. Blocks on all ranks.
  std::unique_ptr<Communicator> CreateCommunicator(int rank, int color);
  std::unique_ptr<HostGroup> CreateHostGroup(int rank, int color);

  // Tells that `rank` makes no more calls.
  void Leave(int rank);
  // Ends all ranks at their present or next call. The first reason is kept.
  void Abort(const std::string& reason);
  // Why ranks were ended; empty if none was.
  std::string abort_reason();
  // One line on who waits where, such as "rank 0 waits in AllGather, rank 1 runs, rank 2 has left".
  std::string Describe();

 private:
  friend class ThreadGroup;

  struct Member {
    ThreadGroup* group;
    int index;
  };
  Member Join(int rank, int color);
  // Both need the mutex.
  void AbortLocked(const std::string& reason);
  std::string DescribeLocked() const;

  const int size_;
  const EndThread end_thread_;

  std::mutex mutex_;
  // All below is guarded by the mutex.
  std::string abort_reason_;
  std::vector<bool> left_;
  // What each rank waits in; null while it runs.
  std::vector<const char*> waits_in_;
  std::vector<int64_t> joins_;
  // By the number of the Join call and the color.
  std::map<std::pair<int64_t, int>, ThreadGroup*> joined_;
  // The first one holds all ranks and serves Join.
  std::vector<std::unique_ptr<ThreadGroup>> groups_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_THREAD_COMMUNICATOR_H_
