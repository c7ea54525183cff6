// Calls that may block, on peers or on a disk, made visible to the watchdog: each of these forwards
// to another object and tells `progress` before and after. `progress` must outlive them.
#ifndef PANTHERA_LAUNCHER_WATCHED_CALLS_H_
#define PANTHERA_LAUNCHER_WATCHED_CALLS_H_

#include <memory>
#include <string>
#include <vector>

#include "launcher/progress.h"
#include "runtime/checkpoint/file.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"

namespace panthera {

std::unique_ptr<HostGroup> WatchCalls(std::unique_ptr<HostGroup> group, Progress& progress);
std::unique_ptr<Communicator> WatchCalls(std::unique_ptr<Communicator> communicator,
                                         Progress& progress);

// Of `files`, which must outlive it. A null `progress` is told nothing.
class WatchedFileSystem final : public FileSystem {
 public:
  WatchedFileSystem(FileSystem& files, Progress* progress) : files_(files), progress_(progress) {}

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

 private:
  void Beat();

  FileSystem& files_;
  Progress* progress_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_WATCHED_CALLS_H_
