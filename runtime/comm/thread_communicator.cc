#include "runtime/comm/thread_communicator.h"

#include <cstddef>
#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"

namespace panthera {
namespace {

// What one rank says on entering a call. Members of a group must agree on all but `data`, and on
// `bytes` where the peers need not know it beforehand.
struct ThreadCall {
  const char* verb = "";
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  DType dtype = DType::kU8;
  int root = 0;
};

enum class Lengths : uint8_t { kEqual, kMayDiffer };

bool Matches(const ThreadCall& a, const ThreadCall& b, Lengths lengths) {
  return std::strcmp(a.verb, b.verb) == 0 && a.dtype == b.dtype && a.root == b.root &&
         (a.bytes == b.bytes || lengths == Lengths::kMayDiffer);
}

std::string ToString(const ThreadCall& call) {
  return absl::StrCat(call.verb, " of ", call.bytes, " bytes of ", Name(call.dtype), " from root ",
                      call.root);
}

}  // namespace

// The meeting place of some of a world's ranks.
class ThreadGroup {
 public:
  ThreadGroup(ThreadWorld& world, std::vector<int> world_ranks)
      : world_(world), world_ranks_(std::move(world_ranks)), calls_(world_ranks_.size()) {}

  int size() const { return static_cast<int>(world_ranks_.size()); }

  // Waits until all members have begun the call, then returns what each said. Their memory may be
  // read until this member ends the call. Ends the thread if a member cannot come.
  std::span<const ThreadCall> Begin(int index, const ThreadCall& call, Lengths lengths);
  // Waits until all members have ended the call: then nobody reads this member's memory any more.
  // All members have begun, so all come, whatever happens to the world.
  void End(int index);

  void Notify() { changed_.notify_all(); }

 private:
  bool AllMatch(Lengths lengths) const;
  std::string DescribeMismatch() const;
  bool SomebodyLeft() const;

  ThreadWorld& world_;
  const std::vector<int> world_ranks_;

  // All below is guarded by the world's mutex; `calls_` is also read, and not written, between
  // Begin and End.
  std::condition_variable changed_;
  std::vector<ThreadCall> calls_;
  int began_ = 0;
  int ended_ = 0;
  // How many calls all members have begun and ended.
  uint64_t begun_calls_ = 0;
  uint64_t ended_calls_ = 0;
};

bool ThreadGroup::AllMatch(Lengths lengths) const {
  for (const ThreadCall& call : calls_) {
    if (!Matches(call, calls_[0], lengths)) {
      return false;
    }
  }
  return true;
}

std::string ThreadGroup::DescribeMismatch() const {
  std::string text = "ranks issue different calls: ";
  for (size_t i = 0; i < calls_.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? ", " : "", "rank ", world_ranks_[i], " ", ToString(calls_[i]));
  }
  return text;
}

bool ThreadGroup::SomebodyLeft() const {
  for (const int rank : world_ranks_) {
    if (world_.left_[static_cast<size_t>(rank)]) {
      return true;
    }
  }
  return false;
}

std::span<const ThreadCall> ThreadGroup::Begin(int index, const ThreadCall& call, Lengths lengths) {
  const auto world_rank = static_cast<size_t>(world_ranks_[static_cast<size_t>(index)]);
  std::unique_lock lock(world_.mutex_);
  if (world_.abort_reason_.empty()) {
    calls_[static_cast<size_t>(index)] = call;
    world_.waits_in_[world_rank] = call.verb;
    const uint64_t before = begun_calls_;
    if (++began_ == size()) {
      if (AllMatch(lengths)) {
        began_ = 0;
        ++begun_calls_;
        Notify();
      } else {
        world_.AbortLocked(DescribeMismatch());
      }
    }
    while (begun_calls_ == before && world_.abort_reason_.empty()) {
      if (SomebodyLeft()) {
        world_.AbortLocked("ranks wait for one that has left: " + world_.DescribeLocked());
      } else {
        changed_.wait(lock);
      }
    }
    world_.waits_in_[world_rank] = nullptr;
    if (begun_calls_ != before) {
      return calls_;
    }
  }
  lock.unlock();
  world_.end_thread_();
  CHECK(false) << "end_thread returned";
  return {};
}

void ThreadGroup::End(int index) {
  const auto world_rank = static_cast<size_t>(world_ranks_[static_cast<size_t>(index)]);
  std::unique_lock lock(world_.mutex_);
  const uint64_t before = ended_calls_;
  if (++ended_ == size()) {
    ended_ = 0;
    ++ended_calls_;
    Notify();
    return;
  }
  world_.waits_in_[world_rank] = calls_[static_cast<size_t>(index)].verb;
  changed_.wait(lock, [&] { return ended_calls_ != before; });
  world_.waits_in_[world_rank] = nullptr;
}

namespace {

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(ThreadGroup& group, int index)
      : Communicator(index, group.size()), group_(group) {}

 private:
  // Peers copy from this rank's memory on streams of their own, which know nothing of this one's
  // order: what comes before the call must be done when they begin.
  std::span<const ThreadCall> Begin(const char* verb, const Tensor& tensor, int root,
                                    Stream& stream) {
    stream.Synchronize();
    return group_.Begin(rank(), {verb, tensor.bytes_data(), tensor.bytes(), tensor.dtype(), root},
                        Lengths::kEqual);
  }

  // Peers may write their memory again, or free it, as soon as all have ended the call: this rank's
  // copies must be done.
  void End(Stream& stream) {
    stream.Synchronize();
    group_.End(rank());
  }

  // to = the bytes at `from`, which lie on a device of the same kind.
  static void CopyFrom(const std::byte* from, Tensor to, Stream& stream) {
    Copy(stream, Tensor(const_cast<std::byte*>(from), to.shape(), to.dtype(), to.device()), to);
  }

  void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) override {
    const auto calls = Begin("AllToAll", send, 0, stream);
    const int64_t row_bytes = send.bytes() / size();
    for (int64_t s = 0; s < size(); ++s) {
      CopyFrom(calls[static_cast<size_t>(s)].data + rank() * row_bytes, recv.Slice(s, s + 1),
               stream);
    }
    End(stream);
  }

  void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) override {
    const auto calls = Begin("AllGather", shard, 0, stream);
    for (int64_t s = 0; s < size(); ++s) {
      const Tensor row = full.Slice(s, s + 1);
      const std::byte* data = calls[static_cast<size_t>(s)].data;
      if (row.bytes_data() != data) {
        CopyFrom(data, row, stream);
      }
    }
    End(stream);
  }

  void DoBroadcast(Tensor buffer, int root, Stream& stream) override {
    const auto calls = Begin("Broadcast", buffer, root, stream);
    if (rank() != root) {
      CopyFrom(calls[static_cast<size_t>(root)].data, buffer, stream);
    }
    End(stream);
  }

  ThreadGroup& group_;
};

class ThreadHostGroup final : public HostGroup {
 public:
  ThreadHostGroup(ThreadGroup& group, int index) : group_(group), index_(index) {}

  int rank() const override { return index_; }
  int size() const override { return group_.size(); }

  std::vector<std::string> AllGather(const std::string& bytes) override {
    std::vector<std::string> all;
    for (const ThreadCall& call : Begin("host AllGather", bytes, 0)) {
      all.emplace_back(reinterpret_cast<const char*>(call.data), static_cast<size_t>(call.bytes));
    }
    group_.End(index_);
    return all;
  }

  std::string Broadcast(const std::string& bytes, int root) override {
    CHECK_GE(root, 0);
    CHECK_LT(root, size());
    const ThreadCall& call = Begin("host Broadcast", bytes, root)[static_cast<size_t>(root)];
    std::string copy(reinterpret_cast<const char*>(call.data), static_cast<size_t>(call.bytes));
    group_.End(index_);
    return copy;
  }

 private:
  std::span<const ThreadCall> Begin(const char* verb, const std::string& bytes, int root) {
    return group_.Begin(index_,
                        {.verb = verb,
                         .data = reinterpret_cast<const std::byte*>(bytes.data()),
                         .bytes = static_cast<int64_t>(bytes.size()),
                         .root = root},
                        Lengths::kMayDiffer);
  }

  ThreadGroup& group_;
  int index_;
};

}  // namespace

ThreadWorld::ThreadWorld(int size, EndThread end_thread)
    : size_(size),
      end_thread_(end_thread),
      left_(static_cast<size_t>(size), false),
      waits_in_(static_cast<size_t>(size), nullptr),
      joins_(static_cast<size_t>(size), 0) {
  CHECK_GE(size, 1);
  std::vector<int> everyone;
  for (int rank = 0; rank < size; ++rank) {
    everyone.push_back(rank);
  }
  groups_.push_back(std::make_unique<ThreadGroup>(*this, std::move(everyone)));
}

ThreadWorld::~ThreadWorld() = default;

ThreadWorld::Member ThreadWorld::Join(int rank, int color) {
  CHECK_GE(rank, 0);
  CHECK_LT(rank, size_);
  std::unique_lock lock(mutex_);
  ThreadGroup& everyone = *groups_[0];
  lock.unlock();
  const auto calls = everyone.Begin(
      rank, {.verb = "Join", .data = reinterpret_cast<const std::byte*>(&color)}, Lengths::kEqual);
  Member member{nullptr, 0};
  std::vector<int> members;
  for (int r = 0; r < size_; ++r) {
    int other = 0;
    std::memcpy(&other, calls[static_cast<size_t>(r)].data, sizeof(other));
    if (other == color) {
      member.index = r == rank ? static_cast<int>(members.size()) : member.index;
      members.push_back(r);
    }
  }
  everyone.End(rank);

  lock.lock();
  ThreadGroup*& joined = joined_[{joins_[static_cast<size_t>(rank)]++, color}];
  if (joined == nullptr) {
    groups_.push_back(std::make_unique<ThreadGroup>(*this, std::move(members)));
    joined = groups_.back().get();
  }
  member.group = joined;
  return member;
}

std::unique_ptr<Communicator> ThreadWorld::CreateCommunicator(int rank, int color) {
  const Member member = Join(rank, color);
  return std::make_unique<ThreadCommunicator>(*member.group, member.index);
}

std::unique_ptr<HostGroup> ThreadWorld::CreateHostGroup(int rank, int color) {
  const Member member = Join(rank, color);
  return std::make_unique<ThreadHostGroup>(*member.group, member.index);
}

void ThreadWorld::Leave(int rank) {
  const std::scoped_lock lock(mutex_);
  left_[static_cast<size_t>(rank)] = true;
  for (const auto& group : groups_) {
    group->Notify();
  }
}

void ThreadWorld::Abort(const std::string& reason) {
  const std::scoped_lock lock(mutex_);
  AbortLocked(reason);
}

void ThreadWorld::AbortLocked(const std::string& reason) {
  if (abort_reason_.empty()) {
    abort_reason_ = reason;
  }
  for (const auto& group : groups_) {
    group->Notify();
  }
}

std::string ThreadWorld::abort_reason() {
  const std::scoped_lock lock(mutex_);
  return abort_reason_;
}

std::string ThreadWorld::Describe() {
  const std::scoped_lock lock(mutex_);
  return DescribeLocked();
}

std::string ThreadWorld::DescribeLocked() const {
  std::string text;
  for (size_t rank = 0; rank < waits_in_.size(); ++rank) {
    absl::StrAppend(&text, rank > 0 ? ", " : "", "rank ", rank);
    if (left_[rank]) {
      absl::StrAppend(&text, " has left");
    } else if (waits_in_[rank] != nullptr) {
      absl::StrAppend(&text, " waits in ", waits_in_[rank]);
    } else {
      absl::StrAppend(&text, " runs");
    }
  }
  return text;
}

}  // namespace panthera
