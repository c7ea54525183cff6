#include "launcher/watched_calls.h"

#include <utility>

#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

// From construction to destruction this rank waits for its peers.
class CallScope {
 public:
  CallScope(Progress& progress, PeerCall call) : progress_(progress) { progress_.BeginCall(call); }
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;
  ~CallScope() { progress_.EndCall(); }

 private:
  Progress& progress_;
};

class WatchedHostGroup final : public HostGroup {
 public:
  WatchedHostGroup(std::unique_ptr<HostGroup> group, Progress& progress)
      : group_(std::move(group)), progress_(progress) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::vector<std::string> AllGather(const std::string& bytes) override {
    const CallScope scope(progress_, PeerCall::kControlAllGather);
    return group_->AllGather(bytes);
  }
  std::string Broadcast(const std::string& bytes, int root) override {
    const CallScope scope(progress_, PeerCall::kControlBroadcast);
    return group_->Broadcast(bytes, root);
  }

 private:
  std::unique_ptr<HostGroup> group_;
  Progress& progress_;
};

class WatchedCommunicator final : public Communicator {
 public:
  WatchedCommunicator(std::unique_ptr<Communicator> communicator, Progress& progress)
      : Communicator(communicator->rank(), communicator->size()),
        communicator_(std::move(communicator)),
        progress_(progress) {}

  Buffer Allocate(Device device, MemoryLedger& ledger, MemoryCategory category, std::string name,
                  int64_t bytes) override {
    return communicator_->Allocate(device, ledger, category, std::move(name), bytes);
  }

  absl::Status Health() override { return communicator_->Health(); }

 private:
  void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) override {
    const CallScope scope(progress_, PeerCall::kAllToAll);
    communicator_->AllToAll(send, recv, stream);
  }
  void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) override {
    const CallScope scope(progress_, PeerCall::kAllGather);
    communicator_->AllGather(shard, full, stream);
  }
  void DoBroadcast(Tensor buffer, int root, Stream& stream) override {
    const CallScope scope(progress_, PeerCall::kBroadcast);
    communicator_->Broadcast(buffer, root, stream);
  }

  std::unique_ptr<Communicator> communicator_;
  Progress& progress_;
};

class WatchedFile final : public File {
 public:
  WatchedFile(std::unique_ptr<File> file, Progress& progress)
      : file_(std::move(file)), progress_(progress) {}

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
    progress_.Beat();
    return file_->WriteAt(offset, data);
  }
  absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
    progress_.Beat();
    return file_->ReadAt(offset, data);
  }
  absl::Status Allocate(int64_t bytes) override {
    progress_.Beat();
    return file_->Allocate(bytes);
  }
  absl::StatusOr<int64_t> Bytes() override { return file_->Bytes(); }
  absl::Status Sync() override {
    progress_.Beat();
    return file_->Sync();
  }
  absl::Status Close() override {
    progress_.Beat();
    return file_->Close();
  }

 private:
  std::unique_ptr<File> file_;
  Progress& progress_;
};

}  // namespace

std::unique_ptr<HostGroup> WatchCalls(std::unique_ptr<HostGroup> group, Progress& progress) {
  return std::make_unique<WatchedHostGroup>(std::move(group), progress);
}

std::unique_ptr<Communicator> WatchCalls(std::unique_ptr<Communicator> communicator,
                                         Progress& progress) {
  return std::make_unique<WatchedCommunicator>(std::move(communicator), progress);
}

absl::StatusOr<std::unique_ptr<File>> WatchedFileSystem::Open(const std::string& path,
                                                              OpenMode mode) {
  Beat();
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.Open(path, mode));
  if (progress_ == nullptr) {
    return file;
  }
  return std::make_unique<WatchedFile>(std::move(file), *progress_);
}

absl::Status WatchedFileSystem::MakeDirectory(const std::string& path) {
  Beat();
  return files_.MakeDirectory(path);
}

absl::StatusOr<std::vector<DirectoryEntry>> WatchedFileSystem::List(const std::string& path) {
  Beat();
  return files_.List(path);
}

absl::Status WatchedFileSystem::Rename(const std::string& from, const std::string& to) {
  Beat();
  return files_.Rename(from, to);
}

absl::Status WatchedFileSystem::Remove(const std::string& path) {
  Beat();
  return files_.Remove(path);
}

absl::Status WatchedFileSystem::SyncDirectory(const std::string& path) {
  Beat();
  return files_.SyncDirectory(path);
}

void WatchedFileSystem::Beat() {
  if (progress_ != nullptr) {
    progress_->Beat();
  }
}

}  // namespace panthera
