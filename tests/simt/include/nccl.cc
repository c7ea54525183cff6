#include "tests/simt/include/nccl.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/simt/emulator/device_state.h"

namespace {

// Ranks in other processes never come.
constexpr std::chrono::seconds kJoinPatience(60);

// What one rank gives to a peer and takes from it in a call; null: nothing.
struct Exchange {
  const void* from = nullptr;
  size_t from_bytes = 0;
  void* to = nullptr;
  size_t to_bytes = 0;
};
// By peer.
using Call = std::vector<Exchange>;

// What the ranks of a communicator share.
struct Meeting {
  explicit Meeting(int size)
      : calls(static_cast<size_t>(size)),
        began(static_cast<size_t>(size)),
        ended(static_cast<size_t>(size)),
        left(static_cast<size_t>(size)) {}

  // All below is guarded by the mutex; calls are also read between a call's two meetings.
  std::mutex mutex;
  std::condition_variable changed;
  int joined = 0;
  // By rank: the call that it is in, how many it has begun and ended, and whether it makes no more.
  std::vector<const Call*> calls;
  std::vector<uint64_t> began;
  std::vector<uint64_t> ended;
  std::vector<bool> left;
};

enum class Arrival { kAll, kSomebodyLeft };

// Waits until all ranks have come to call `number`, as `counts` has them.
Arrival WaitForAll(Meeting& meeting, const std::vector<uint64_t>& counts, uint64_t number,
                   std::unique_lock<std::mutex>& lock) {
  for (size_t rank = 0; rank < counts.size();) {
    if (counts[rank] >= number) {
      ++rank;
    } else if (meeting.left[rank]) {
      return Arrival::kSomebodyLeft;
    } else {
      meeting.changed.wait(lock);
    }
  }
  return Arrival::kAll;
}

// Pending work may outlive the handle, so it shares this.
struct Rank {
  std::shared_ptr<Meeting> meeting;
  size_t rank = 0;
  uint64_t calls_done = 0;
  bool is_aborted = false;
  ncclResult_t error = ncclSuccess;
};

// The rank's part of a call, when its stream has come to it.
void Perform(Rank& self, const Call& call) {
  if (self.is_aborted || self.error != ncclSuccess) {
    return;
  }
  Meeting& meeting = *self.meeting;
  const uint64_t number = ++self.calls_done;
  std::unique_lock lock(meeting.mutex);
  meeting.calls[self.rank] = &call;
  meeting.began[self.rank] = number;
  meeting.changed.notify_all();
  if (WaitForAll(meeting, meeting.began, number, lock) == Arrival::kSomebodyLeft) {
    self.error = ncclRemoteError;
    return;
  }
  const std::vector<const Call*> peers = meeting.calls;
  lock.unlock();
  for (size_t peer = 0; peer < call.size(); ++peer) {
    const Exchange& given = (*peers[peer])[self.rank];
    const Exchange& own = call[peer];
    if (given.from_bytes != own.to_bytes) {
      self.error = ncclInvalidUsage;
    } else if (own.to != given.from) {
      std::memcpy(own.to, given.from, own.to_bytes);
    }
  }
  // Nobody may change its memory, or make the next call, while a peer still reads.
  lock.lock();
  meeting.ended[self.rank] = number;
  meeting.changed.notify_all();
  (void)WaitForAll(meeting, meeting.ended, number, lock);
}

thread_local bool fail_next_unique_id = false;

struct Group {
  bool is_open = false;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  Call call;
};
Group& ThisGroup() {
  thread_local Group group;
  return group;
}

// Of communicators that not all ranks have joined yet, by their id.
struct Meetings {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Meeting>> open;
  int64_t ids = 0;
};
Meetings& AllMeetings() {
  static Meetings meetings;
  return meetings;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Rank> rank = std::make_shared<Rank>();
  // The last call, on its stream.
  simt::Event last;
};

namespace {

ncclResult_t Enqueue(ncclComm_t comm, cudaStream_t stream, Call call) {
  simt::DeviceState& state = simt::DeviceState::Get();
  state.Enqueue(stream, comm->last.Waiter());
  state.Enqueue(stream, [rank = comm->rank, call = std::move(call)] { Perform(*rank, call); });
  comm->last.Record(*stream);
  return ncclSuccess;
}

size_t SizeOf(ncclComm_t comm) { return comm->rank->meeting->left.size(); }

void Leave(ncclComm_t comm) {
  Meeting& meeting = *comm->rank->meeting;
  const std::scoped_lock lock(meeting.mutex);
  meeting.left[comm->rank->rank] = true;
  meeting.changed.notify_all();
}

// The entry of the open group for `peer`; null if the call is none of the group's.
Exchange* InGroup(ncclComm_t comm, cudaStream_t stream, int peer) {
  Group& group = ThisGroup();
  if (!group.is_open || peer < 0 || static_cast<size_t>(peer) >= SizeOf(comm)) {
    return nullptr;
  }
  if (group.comm == nullptr) {
    group.comm = comm;
    group.stream = stream;
    group.call.resize(SizeOf(comm));
  }
  return group.comm == comm && group.stream == stream ? &group.call[static_cast<size_t>(peer)]
                                                      : nullptr;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "unknown error";
  }
}

const char* ncclGetLastError(ncclComm_t /*comm*/) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  if (std::exchange(fail_next_unique_id, false)) {
    return ncclSystemError;
  }
  Meetings& meetings = AllMeetings();
  const std::scoped_lock lock(meetings.mutex);
  *id = {};
  std::memcpy(id->internal, &++meetings.ids, sizeof(meetings.ids));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  if (rank < 0 || rank >= size) {
    return ncclInvalidArgument;
  }
  Meetings& meetings = AllMeetings();
  const std::string key(id.internal, sizeof(id.internal));
  std::shared_ptr<Meeting> meeting;
  {
    const std::scoped_lock lock(meetings.mutex);
    std::shared_ptr<Meeting>& open = meetings.open[key];
    if (open == nullptr) {
      open = std::make_shared<Meeting>(size);
    }
    meeting = open;
    if (++meeting->joined == size) {
      meetings.open.erase(key);
    }
  }
  std::unique_lock lock(meeting->mutex);
  meeting->began[static_cast<size_t>(rank)] = 1;
  meeting->changed.notify_all();
  const auto all_came = [&] {
    return std::count(meeting->began.begin(), meeting->began.end(), 0) == 0;
  };
  if (!meeting->changed.wait_for(lock, kJoinPatience, all_came)) {
    return ncclSystemError;
  }
  *comm = new ncclComm;
  (*comm)->rank->meeting = meeting;
  (*comm)->rank->rank = static_cast<size_t>(rank);
  (*comm)->rank->calls_done = 1;
  return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->rank->error;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  comm->last.Complete();
  return comm->rank->error;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  Leave(comm);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->rank->is_aborted = true;
  return ncclCommDestroy(comm);
}

ncclResult_t ncclGroupStart() {
  Group& group = ThisGroup();
  if (group.is_open) {
    return ncclInvalidUsage;
  }
  group.is_open = true;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  Group group = std::exchange(ThisGroup(), {});
  if (!group.is_open) {
    return ncclInvalidUsage;
  }
  return group.comm == nullptr ? ncclSuccess
                               : Enqueue(group.comm, group.stream, std::move(group.call));
}

ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t /*type*/, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  Exchange* const exchange = InGroup(comm, stream, peer);
  if (exchange == nullptr || exchange->from != nullptr) {
    return ncclInvalidUsage;
  }
  exchange->from = from;
  exchange->from_bytes = count;
  return ncclSuccess;
}

ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t /*type*/, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  Exchange* const exchange = InGroup(comm, stream, peer);
  if (exchange == nullptr || exchange->to != nullptr) {
    return ncclInvalidUsage;
  }
  exchange->to = to;
  exchange->to_bytes = count;
  return ncclSuccess;
}

ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t /*type*/,
                           ncclComm_t comm, cudaStream_t stream) {
  Call call(SizeOf(comm));
  for (size_t peer = 0; peer < call.size(); ++peer) {
    call[peer] = {from, count, static_cast<char*>(to) + peer * count, count};
  }
  return Enqueue(comm, stream, std::move(call));
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t /*type*/,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  Call call(SizeOf(comm));
  if (root < 0 || static_cast<size_t>(root) >= call.size()) {
    return ncclInvalidArgument;
  }
  if (static_cast<size_t>(root) == comm->rank->rank) {
    for (Exchange& exchange : call) {
      exchange.from = from;
      exchange.from_bytes = count;
    }
  }
  call[static_cast<size_t>(root)].to = to;
  call[static_cast<size_t>(root)].to_bytes = count;
  return Enqueue(comm, stream, std::move(call));
}

namespace simt {

void FailNextUniqueId() { fail_next_unique_id = true; }

}  // namespace simt
