#ifndef PANTHERA_TESTS_SUPPORT_COUNTING_FILE_SYSTEM_H_
#define PANTHERA_TESTS_SUPPORT_COUNTING_FILE_SYSTEM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/checkpoint/file.h"

namespace panthera::testing {

// The real files; counts what is read.
class CountingFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    absl::StatusOr<std::unique_ptr<File>> file = files_.Open(path, mode);
    if (!file.ok()) {
      return file;
    }
    return std::make_unique<CountedFile>(*std::move(file), *this);
  }
  absl::Status MakeDirectory(const std::string& path) override {
    return files_.MakeDirectory(path);
  }
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override {
    return files_.List(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return files_.Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return files_.Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override {
    return files_.SyncDirectory(path);
  }

  int64_t reads = 0;
  int64_t bytes_read = 0;
  int64_t largest_read_bytes = 0;

 private:
  class CountedFile final : public File {
   public:
    CountedFile(std::unique_ptr<File> file, CountingFileSystem& counts)
        : file_(std::move(file)), counts_(counts) {}

    absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
      return file_->WriteAt(offset, data);
    }
    absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
      const auto bytes = static_cast<int64_t>(data.size());
      ++counts_.reads;
      counts_.bytes_read += bytes;
      counts_.largest_read_bytes = std::max(counts_.largest_read_bytes, bytes);
      return file_->ReadAt(offset, data);
    }
    absl::Status Allocate(int64_t bytes) override { return file_->Allocate(bytes); }
    absl::StatusOr<int64_t> Bytes() override { return file_->Bytes(); }
    absl::Status Sync() override { return file_->Sync(); }
    absl::Status Close() override { return file_->Close(); }

   private:
    std::unique_ptr<File> file_;
    CountingFileSystem& counts_;
  };

  PosixFileSystem files_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_COUNTING_FILE_SYSTEM_H_
