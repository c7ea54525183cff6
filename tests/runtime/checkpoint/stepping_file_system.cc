#include "tests/runtime/checkpoint/stepping_file_system.h"

#include <utility>

#include "runtime/base/status_macros.h"

namespace panthera::testing {
namespace {

class SteppingFile final : public File {
 public:
  SteppingFile(SteppingFileSystem& files, std::unique_ptr<File> file)
      : files_(files), file_(std::move(file)) {}

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
    if (const absl::Status status = files_.Step(); !status.ok()) {
      (void)file_->WriteAt(offset, data.subspan(0, data.size() / 2));
      return status;
    }
    return file_->WriteAt(offset, data);
  }
  absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
    RETURN_IF_ERROR(files_.Step());
    return file_->ReadAt(offset, data);
  }
  absl::Status Allocate(int64_t bytes) override {
    RETURN_IF_ERROR(files_.Step());
    return file_->Allocate(bytes);
  }
  absl::StatusOr<int64_t> Bytes() override {
    RETURN_IF_ERROR(files_.Step());
    return file_->Bytes();
  }
  absl::Status Sync() override {
    // Left out: these tests kill a program, not a machine, and disks are slow.
    return files_.Step();
  }
  absl::Status Close() override {
    RETURN_IF_ERROR(files_.Step());
    return file_->Close();
  }

 private:
  SteppingFileSystem& files_;
  std::unique_ptr<File> file_;
};

}  // namespace

absl::Status SteppingFileSystem::Step() {
  const int64_t operation = operations_++;
  const bool fails = failure_ == Failure::kDeath ? operation >= failing_operation_
                                                 : operation == failing_operation_;
  return fails ? absl::UnavailableError("injected failure") : absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<File>> SteppingFileSystem::Open(const std::string& path,
                                                               OpenMode mode) {
  RETURN_IF_ERROR(Step());
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files_.Open(path, mode));
  return std::make_unique<SteppingFile>(*this, std::move(file));
}

absl::Status SteppingFileSystem::MakeDirectory(const std::string& path) {
  RETURN_IF_ERROR(Step());
  return files_.MakeDirectory(path);
}

absl::StatusOr<std::vector<DirectoryEntry>> SteppingFileSystem::List(const std::string& path) {
  RETURN_IF_ERROR(Step());
  return files_.List(path);
}

absl::Status SteppingFileSystem::Rename(const std::string& from, const std::string& to) {
  RETURN_IF_ERROR(Step());
  return files_.Rename(from, to);
}

absl::Status SteppingFileSystem::Remove(const std::string& path) {
  RETURN_IF_ERROR(Step());
  return files_.Remove(path);
}

absl::Status SteppingFileSystem::SyncDirectory(const std::string&) { return Step(); }

}  // namespace panthera::testing
