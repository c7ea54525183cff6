#include "runtime/data/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

absl::Status FlushDirectoryOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string directory = parent.empty() ? "." : parent.string();
  const int descriptor = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the directory ", directory));
  }
  const int result = fsync(descriptor);
  const int error = errno;
  close(descriptor);
  if (result != 0) {
    return absl::ErrnoToStatus(error, absl::StrCat("cannot flush the directory ", directory));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DurableFile> DurableFile::Create(const std::string& path) {
  const std::string partial = path + ".partial";
  std::FILE* file = std::fopen(partial.c_str(), "wbe");
  if (file == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", partial));
  }
  return DurableFile(path, file);
}

DurableFile::~DurableFile() {
  if (file_ != nullptr) {
    unlink(partial_path().c_str());
  }
}

absl::Status DurableFile::Append(const void* data, int64_t bytes) {
  CHECK(file_ != nullptr) << path_ << " is already published";
  const auto size = static_cast<size_t>(bytes);
  if (size > 0 && std::fwrite(data, 1, size, file_.get()) != size) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write to ", partial_path()));
  }
  return absl::OkStatus();
}

absl::Status DurableFile::Publish() {
  CHECK(file_ != nullptr) << path_ << " is already published";
  if (std::fflush(file_.get()) != 0 || fsync(fileno(file_.get())) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write to ", partial_path()));
  }
  if (std::rename(partial_path().c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("cannot rename ", partial_path(), " to ", path_));
  }
  file_.reset();
  return FlushDirectoryOf(path_);
}

absl::Status WriteDurableFile(const std::string& path, std::string_view content) {
  ASSIGN_OR_RETURN(DurableFile file, DurableFile::Create(path));
  RETURN_IF_ERROR(file.Append(content.data(), static_cast<int64_t>(content.size())));
  return file.Publish();
}

}  // namespace panthera
