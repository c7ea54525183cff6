// The file operations that checkpoints are made of. All of them pass through FileSystem, so that a
// test can count them, let one fail, or stop the program between any two.
//
// Errors name the path, the system's reason and what helps: kResourceExhausted for a full disk or
// quota, kPermissionDenied, kNotFound, kUnavailable for the rest.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_FILE_H_
#define PANTHERA_RUNTIME_CHECKPOINT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace panthera {

// An open file. Every call may block on the disk; one that the system interrupts or does in parts
// is gone on with. Several ranks may hold the same file open and
// write parts that do not overlap.
class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  // Closes the file if Close was not called, ignoring errors.
  virtual ~File() = default;

  // Writes all of `data` beginning at byte `offset`.
  virtual absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) = 0;
  // Fills all of `data` from byte `offset`; kDataLoss if the file ends before.
  virtual absl::Status ReadAt(int64_t offset, std::span<std::byte> data) = 0;
  // Makes the file `bytes` long and, where the file system can, reserves the space, so that a full
  // disk shows before anything is written.
  virtual absl::Status Allocate(int64_t bytes) = 0;
  virtual absl::StatusOr<int64_t> Bytes() = 0;
  // Returns when everything written is on the disk.
  virtual absl::Status Sync() = 0;
  // Some file systems report a failed write only here.
  virtual absl::Status Close() = 0;
};

enum class OpenMode {
  kRead,    // an existing file, for reading
  kWrite,   // an existing file, for writing; the contents stay
  kCreate,  // an empty file, for writing
};

struct DirectoryEntry {
  std::string name;
  bool is_directory = false;
};

class FileSystem {
 public:
  FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;
  virtual ~FileSystem() = default;

  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;
  // Makes a directory in one that exists; kAlreadyExists if it is there.
  virtual absl::Status MakeDirectory(const std::string& path) = 0;
  // What a directory holds, sorted by name.
  virtual absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) = 0;
  // Replaces a file or an empty directory `to` in one indivisible step.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // Removes a file or an empty directory.
  virtual absl::Status Remove(const std::string& path) = 0;
  // Returns when the names in a directory are on the disk: without this a rename may be lost.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;

  // Makes a directory and those above it, and returns when the names of those it made are on the
  // disk; one that exists is no error.
  absl::Status MakeDirectories(const std::string& path);
};

// The machine's own file systems, by POSIX calls.
class PosixFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
};

// The error for a failed system call: "cannot <action> <path>: <reason>; <what helps>".
absl::Status FileError(const std::string& action, const std::string& path, int error_number);

absl::StatusOr<std::string> ReadFile(FileSystem& files, const std::string& path);
// The same of a file that anyone may have put there: kDataLoss, and nothing is read, if it has more
// than `most_bytes`.
absl::StatusOr<std::string> ReadFileUpTo(FileSystem& files, const std::string& path,
                                         int64_t most_bytes);
// Creates or replaces a file and returns when its contents are on the disk.
absl::Status WriteFile(FileSystem& files, const std::string& path, const std::string& contents);
// Removes a directory with everything in it; one that does not exist is no error. Not indivisible.
absl::Status RemoveTree(FileSystem& files, const std::string& path);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_FILE_H_
