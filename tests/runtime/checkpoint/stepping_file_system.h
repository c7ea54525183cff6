#ifndef PANTHERA_TESTS_RUNTIME_CHECKPOINT_STEPPING_FILE_SYSTEM_H_
#define PANTHERA_TESTS_RUNTIME_CHECKPOINT_STEPPING_FILE_SYSTEM_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "runtime/checkpoint/file.h"

namespace panthera::testing {

// A file system with every operation counted, up to the one that fails. Bringing data to the disk
// counts but is not done.
class SteppingFileSystem final : public FileSystem {
 public:
  enum class Failure {
    kOnce,  // the operation fails, later ones work: a faulty disk
    kDeath  // it and all later ones fail: the program was killed; a write gets half done
  };
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // On the POSIX file system.
  explicit SteppingFileSystem(int64_t failing_operation = kNever, Failure failure = Failure::kDeath)
      : SteppingFileSystem(posix_, failing_operation, failure) {}
  // On `files`, which must outlive this.
  SteppingFileSystem(FileSystem& files, int64_t failing_operation, Failure failure)
      : files_(files), failing_operation_(failing_operation), failure_(failure) {}

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

  // The operations so far.
  int64_t operations() const { return operations_; }
  // Counts an operation and tells whether it may be done.
  absl::Status Step();

 private:
  PosixFileSystem posix_;
  FileSystem& files_;
  int64_t operations_ = 0;
  int64_t failing_operation_;
  Failure failure_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_CHECKPOINT_STEPPING_FILE_SYSTEM_H_
