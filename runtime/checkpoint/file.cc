#include "runtime/checkpoint/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include <sys/stat.h>

namespace panthera {
namespace {

// Linux moves at most 2 GiB - 4 KiB in one call; whole larger pieces would come back short anyway.
constexpr size_t kLargestTransfer = size_t{1} << 30;

// Makes a call until no signal interrupts it; what it returned is negative for an error in errno.
template <typename Call>
auto RetryInterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

class PosixFile final : public File {
 public:
  PosixFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}
  ~PosixFile() override {
    if (descriptor_ >= 0) {
      (void)close(descriptor_);
    }
  }

  absl::Status WriteAt(int64_t offset, std::span<const std::byte> data) override {
    CHECK_GE(offset, 0);
    while (!data.empty()) {
      const ssize_t written = RetryInterrupted([&] {
        return pwrite(descriptor_, data.data(), std::min(data.size(), kLargestTransfer), offset);
      });
      if (written <= 0) {
        return FileError("write", path_, written == 0 ? ENOSPC : errno);
      }
      data = data.subspan(static_cast<size_t>(written));
      offset += written;
    }
    return absl::OkStatus();
  }

  absl::Status ReadAt(int64_t offset, std::span<std::byte> data) override {
    CHECK_GE(offset, 0);
    while (!data.empty()) {
      const ssize_t count = RetryInterrupted([&] {
        return pread(descriptor_, data.data(), std::min(data.size(), kLargestTransfer), offset);
      });
      if (count < 0) {
        return FileError("read", path_, errno);
      }
      if (count == 0) {
        return absl::DataLossError(absl::StrCat(path_, " ends at byte ", offset, ", ", data.size(),
                                                " bytes too early: the file was cut off"));
      }
      data = data.subspan(static_cast<size_t>(count));
      offset += count;
    }
    return absl::OkStatus();
  }

  absl::Status Allocate(int64_t bytes) override {
    if (bytes > 0 && RetryInterrupted([&] { return fallocate(descriptor_, 0, 0, bytes); }) == 0) {
      return absl::OkStatus();
    }
    if (bytes > 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
      return FileError("reserve space for", path_, errno);
    }
    return RetryInterrupted([&] { return ftruncate(descriptor_, bytes); }) == 0
               ? absl::OkStatus()
               : FileError("set the length of", path_, errno);
  }

  absl::StatusOr<int64_t> Bytes() override {
    struct stat facts;
    if (fstat(descriptor_, &facts) != 0) {
      return FileError("read the length of", path_, errno);
    }
    return int64_t{facts.st_size};
  }

  absl::Status Sync() override {
    return RetryInterrupted([&] { return fsync(descriptor_); }) == 0
               ? absl::OkStatus()
               : FileError("write", path_, errno);
  }

  absl::Status Close() override {
    const int result = close(std::exchange(descriptor_, -1));
    // Interrupted or not, Linux has closed it, and closing again could hit another file.
    return result == 0 || errno == EINTR ? absl::OkStatus() : FileError("write", path_, errno);
  }

 private:
  int descriptor_;
  std::string path_;
};

int OpenFlags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kWrite:
      return O_WRONLY;
    case OpenMode::kCreate:
      break;
  }
  return O_WRONLY | O_CREAT | O_TRUNC;
}

const char* OpenAction(OpenMode mode) {
  return mode == OpenMode::kRead ? "read" : mode == OpenMode::kWrite ? "write" : "create";
}

}  // namespace

absl::Status FileError(const std::string& action, const std::string& path, int error_number) {
  const std::string what =
      absl::StrCat("cannot ", action, " ", path, ": ",
                   std::error_code(error_number, std::generic_category()).message());
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(
          what + "; free some space or quota there, or keep fewer checkpoints");
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(what +
                                         "; give this user access or choose another run directory");
    case ENOENT:
      return absl::NotFoundError(what + "; check the path");
    case ENOTDIR:
    case EISDIR:
      // Not "not found": what lies in the place of a directory or file would be overlooked.
      return absl::InvalidArgumentError(what + "; check the path");
    case EFBIG:
      return absl::ResourceExhaustedError(
          what + "; raise the limit of file sizes (ulimit -f) or use another file system");
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(what + "; raise the limit of open files (ulimit -n)");
    default:
      return absl::UnavailableError(what + "; check the disk or the network file system");
  }
}

absl::StatusOr<std::unique_ptr<File>> PosixFileSystem::Open(const std::string& path,
                                                            OpenMode mode) {
  const int descriptor =
      RetryInterrupted([&] { return open(path.c_str(), OpenFlags(mode) | O_CLOEXEC, 0644); });
  if (descriptor < 0) {
    return FileError(OpenAction(mode), path, errno);
  }
  return std::make_unique<PosixFile>(descriptor, path);
}

absl::Status FileSystem::MakeDirectories(const std::string& path) {
  absl::Status made = MakeDirectory(path);
  if (absl::IsAlreadyExists(made)) {
    return absl::OkStatus();
  }
  std::string parent = std::filesystem::path(path).parent_path().string();
  if (absl::IsNotFound(made) && !parent.empty() && parent != path) {
    RETURN_IF_ERROR(MakeDirectories(parent));
    made = MakeDirectory(path);
  }
  RETURN_IF_ERROR(made);
  return SyncDirectory(parent.empty() ? "." : parent);
}

absl::Status PosixFileSystem::MakeDirectory(const std::string& path) {
  // Asked first, for above an existing directory even the call may be forbidden.
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::AlreadyExistsError(path);
  }
  return mkdir(path.c_str(), 0777) == 0
             ? absl::OkStatus()
             : FileError("create directory", path, errno == EEXIST ? ENOTDIR : errno);
}

absl::StatusOr<std::vector<DirectoryEntry>> PosixFileSystem::List(const std::string& path) {
  std::error_code error;
  std::vector<DirectoryEntry> entries;
  std::filesystem::directory_iterator it(path, error);
  while (!error && it != std::filesystem::directory_iterator()) {
    std::error_code ignored;
    entries.push_back({it->path().filename().string(), it->symlink_status(ignored).type() ==
                                                           std::filesystem::file_type::directory});
    it.increment(error);
  }
  if (error) {
    return FileError("list directory", path, error.value());
  }
  std::sort(entries.begin(), entries.end(),
            [](const DirectoryEntry& a, const DirectoryEntry& b) { return a.name < b.name; });
  return entries;
}

absl::Status PosixFileSystem::Rename(const std::string& from, const std::string& to) {
  return rename(from.c_str(), to.c_str()) == 0
             ? absl::OkStatus()
             : FileError(absl::StrCat("rename ", from, " to"), to, errno);
}

absl::Status PosixFileSystem::Remove(const std::string& path) {
  return remove(path.c_str()) == 0 ? absl::OkStatus() : FileError("remove", path, errno);
}

absl::Status PosixFileSystem::SyncDirectory(const std::string& path) {
  const int descriptor =
      RetryInterrupted([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) {
    return FileError("open directory", path, errno);
  }
  // Some network file systems keep directories in order by themselves and refuse the call.
  const bool synced = RetryInterrupted([&] { return fsync(descriptor); }) == 0;
  const int error_number = synced || errno == EINVAL ? 0 : errno;
  (void)close(descriptor);
  return error_number == 0 ? absl::OkStatus() : FileError("write directory", path, error_number);
}

absl::StatusOr<std::string> ReadFile(FileSystem& files, const std::string& path) {
  return ReadFileUpTo(files, path, std::numeric_limits<int64_t>::max());
}

absl::StatusOr<std::string> ReadFileUpTo(FileSystem& files, const std::string& path,
                                         int64_t most_bytes) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.Open(path, OpenMode::kRead));
  ASSIGN_OR_RETURN(const int64_t bytes, file->Bytes());
  if (bytes > most_bytes) {
    return absl::DataLossError(absl::StrCat(path, " has ", bytes, " bytes, and no sensible ",
                                            std::filesystem::path(path).filename().string(),
                                            " has more than ", most_bytes, "; fetch it again"));
  }
  std::string contents(static_cast<size_t>(bytes), '\0');
  RETURN_IF_ERROR(file->ReadAt(0, std::as_writable_bytes(std::span(contents))));
  return contents;
}

absl::Status WriteFile(FileSystem& files, const std::string& path, const std::string& contents) {
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.Open(path, OpenMode::kCreate));
  RETURN_IF_ERROR(file->WriteAt(0, std::as_bytes(std::span(contents))));
  RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

absl::Status RemoveTree(FileSystem& files, const std::string& path) {
  absl::StatusOr<std::vector<DirectoryEntry>> entries = files.List(path);
  if (absl::IsNotFound(entries.status())) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(entries.status());
  for (const DirectoryEntry& entry : *entries) {
    const std::string inner = absl::StrCat(path, "/", entry.name);
    RETURN_IF_ERROR(entry.is_directory ? RemoveTree(files, inner) : files.Remove(inner));
  }
  return files.Remove(path);
}

}  // namespace panthera
