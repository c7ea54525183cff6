#ifndef PANTHERA_TESTS_SUPPORT_HOOKED_FILE_SYSTEM_H_
#define PANTHERA_TESTS_SUPPORT_HOOKED_FILE_SYSTEM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/file.h"

namespace panthera::testing {

// Another file system, which must outlive this. Before each operation `hook` is called, on the
// thread and with the path of the operation; it may block, and its error is the operation's.
class HookedFileSystem final : public FileSystem {
 public:
  using Hook = std::function<absl::Status(const std::string& path)>;

  HookedFileSystem(FileSystem& files, Hook hook) : files_(files), hook_(std::move(hook)) {}

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    RETURN_IF_ERROR(hook_(path));
    ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.Open(path, mode));
    return std::make_unique<HookedFile>(std::move(file), path, hook_);
  }
  absl::Status MakeDirectory(const std::string& path) override {
    RETURN_IF_ERROR(hook_(path));
    return files_.MakeDirectory(path);
  }
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override {
    RETURN_IF_ERROR(hook_(path));
    return files_.List(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(hook_(from));
    return files_.Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override {
    RETURN_IF_ERROR(hook_(path));
    return files_.Remove(path);
  }
  absl::Status SyncDirectory(const std::string& path) override {
    RETURN_IF_ERROR(hook_(path));
    return files_.SyncDirectory(path);
  }

 private:
  class HookedFile final : public File {
   public:
    HookedFile(std::unique_ptr<File> file, std::string path, const Hook& hook)
        : file_(std::move(file)), path_(std::move(path)), hook_(hook) {}

    absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
      RETURN_IF_ERROR(hook_(path_));
      return file_->WriteAt(offset, data);
    }
    absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
      RETURN_IF_ERROR(hook_(path_));
      return file_->ReadAt(offset, data);
    }
    absl::Status Allocate(int64_t bytes) override {
      RETURN_IF_ERROR(hook_(path_));
      return file_->Allocate(bytes);
    }
    absl::StatusOr<int64_t> Bytes() override {
      RETURN_IF_ERROR(hook_(path_));
      return file_->Bytes();
    }
    absl::Status Sync() override {
      RETURN_IF_ERROR(hook_(path_));
      return file_->Sync();
    }
    absl::Status Close() override {
      RETURN_IF_ERROR(hook_(path_));
      return file_->Close();
    }

   private:
    std::unique_ptr<File> file_;
    std::string path_;
    const Hook& hook_;
  };

  FileSystem& files_;
  Hook hook_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_HOOKED_FILE_SYSTEM_H_
