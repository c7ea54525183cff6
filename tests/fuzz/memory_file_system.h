#ifndef PANTHERA_TESTS_FUZZ_MEMORY_FILE_SYSTEM_H_
#define PANTHERA_TESTS_FUZZ_MEMORY_FILE_SYSTEM_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/checkpoint/file.h"

namespace panthera::testing {

// Files that are kept in memory. A directory is there when a file lies in it, or once it was made.
// Files must not outlive it.
class MemoryFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status MakeDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

  void Put(const std::string& path, std::string contents) { files_[path] = std::move(contents); }
  // The contents of a file that is there.
  const std::string& Get(const std::string& path) const;

 private:
  // By path; the path of a directory ends in "/" and has no contents.
  std::map<std::string, std::string> files_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_FUZZ_MEMORY_FILE_SYSTEM_H_
