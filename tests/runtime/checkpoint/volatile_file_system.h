#ifndef PANTHERA_TESTS_RUNTIME_CHECKPOINT_VOLATILE_FILE_SYSTEM_H_
#define PANTHERA_TESTS_RUNTIME_CHECKPOINT_VOLATILE_FILE_SYSTEM_H_

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"

#include "runtime/checkpoint/file.h"

namespace panthera::testing {

// The contents of a disk and of the page cache above it. What programs see is all that they did;
// what a loss of power leaves is what was synced and any part of the rest:
// * File::Sync makes a file's bytes durable, not its name; a write that was not synced may be lost,
//   kept, or half kept, independently of those before it.
// * SyncDirectory makes the names in a directory durable. Making, removing and renaming are each
//   indivisible, and each may be lost or kept independently of the others.
class Disk {
 public:
  Disk();

  // The changes that are not durable yet.
  int64_t pending() const;
  // What is left when the power fails and exactly those changes survive, numbered from 0 to
  // pending(), for which `survives` is true: the bytes of files first, then names.
  Disk AfterPowerFailure(absl::FunctionRef<bool(int64_t)> survives) const;
  // The bytes that files take.
  int64_t used_bytes() const { return UsedBytes(0); }

 private:
  friend class VolatileFileSystem;
  friend class VolatileFile;

  // `data` at `offset`; or, without a value, the length becomes `offset`.
  struct FileChange {
    int64_t offset = 0;
    std::optional<std::string> data;
  };
  struct Node {
    bool is_directory = false;
    std::string content, durable_content;
    std::vector<FileChange> pending;
    std::map<std::string, size_t> entries, durable_entries;  // node numbers
    int64_t used_bytes = 0;
    int64_t reserved_bytes = 0;
  };
  // What a name stands for; without a value nothing.
  struct NameEdit {
    size_t directory = 0;
    std::string name;
    std::optional<size_t> node;
  };
  using NameChange = std::vector<NameEdit>;

  static void Apply(const FileChange& change, std::string& content);
  void Change(size_t node, FileChange change);
  void Change(NameChange change);
  void ApplyDurable(const NameChange& change);
  void SyncFile(size_t node);
  void SyncNames(size_t directory);
  // The node of an absolute path.
  std::optional<size_t> Find(const std::string& path) const;
  // The directory above an absolute path, and the last name.
  std::optional<std::pair<size_t, std::string>> FindParent(const std::string& path) const;
  int64_t UsedBytes(size_t node) const;

  std::vector<Node> nodes_;  // the first is "/"; none is ever removed
  std::vector<NameChange> pending_names_;
};

// A file system on such a disk. Safe to use from several threads. Paths are absolute.
class VolatileFileSystem final : public FileSystem {
 public:
  enum class Reserving {
    kYes,  // Allocate takes space, as on ext4 or XFS
    kNo    // only writing takes space, as on many network file systems
  };

  explicit VolatileFileSystem(Disk disk = Disk(), Reserving reserving = Reserving::kYes)
      : disk_(std::move(disk)), reserving_(reserving) {}

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

  // The space for the bytes of files; beyond it writes fail after what fits.
  void set_capacity(int64_t bytes) { capacity_ = bytes; }
  const Disk& disk() const { return disk_; }
  // From now on keeps the disk as it was before every operation that changes or syncs something,
  // and in the middle of every write.
  void RecordHistory() { recording_ = true; }
  const std::vector<Disk>& history() const { return history_; }

 private:
  friend class VolatileFile;

  void Record();
  // Whether `bytes` more may be stored.
  bool Fits(int64_t bytes) const;

  std::mutex mutex_;
  Disk disk_;
  Reserving reserving_;
  int64_t capacity_ = std::numeric_limits<int64_t>::max();
  bool recording_ = false;
  std::vector<Disk> history_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_CHECKPOINT_VOLATILE_FILE_SYSTEM_H_
