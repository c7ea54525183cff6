#include "runtime/checkpoint/run_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/file.h"
#include <sys/file.h>

namespace panthera {
namespace {

std::string ToText(const LockHolder& holder) {
  return absl::StrCat("host=", holder.host, "\npid=", holder.pid, "\njob=", holder.job, "\n");
}

// Nothing if the text is not a whole record: an empty lock was released, a cut-off one is being
// written.
std::optional<LockHolder> ParseHolder(const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (lines.size() != 4 || lines[0].compare(0, 5, "host=") != 0 ||
      lines[1].compare(0, 4, "pid=") != 0 || lines[2].compare(0, 4, "job=") != 0) {
    return std::nullopt;
  }
  LockHolder holder{lines[0].substr(5), 0, lines[2].substr(4)};
  if (!absl::SimpleAtoi(lines[1].substr(4), &holder.pid)) {
    return std::nullopt;
  }
  return holder;
}

absl::StatusOr<std::string> ReadText(int descriptor, const std::string& path) {
  std::array<char, 1024> buffer;
  const ssize_t count = pread(descriptor, buffer.data(), buffer.size(), 0);
  if (count < 0) {
    return FileError("read", path, errno);
  }
  return std::string(buffer.data(), static_cast<size_t>(count));
}

absl::Status WriteText(int descriptor, const std::string& path, const std::string& text) {
  const bool written =
      ftruncate(descriptor, 0) == 0 &&
      pwrite(descriptor, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  return written ? absl::OkStatus() : FileError("write", path, errno);
}

bool IsAlive(const LockHolder& holder, const LockHolder& self) {
  if (holder.host != self.host) {
    return true;  // cannot be known from here
  }
  return kill(static_cast<pid_t>(holder.pid), 0) == 0 || errno == EPERM;
}

absl::Status InUse(const std::string& run_directory, const std::string& path,
                   const std::optional<LockHolder>& holder) {
  return absl::FailedPreconditionError(
      absl::StrCat("run directory ", run_directory, " is in use by ",
                   holder.has_value() ? Describe(*holder) : "another process",
                   "; wait until it ends, or choose another run directory (if you know that it is "
                   "dead, remove ",
                   path, ")"));
}

// Whether this process may have the lock, given what the lock file says.
absl::Status TakeOver(int descriptor, const std::string& run_directory, const std::string& path,
                      const LockHolder& self) {
  const int failure = flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  ASSIGN_OR_RETURN(const std::string text, ReadText(descriptor, path));
  const std::optional<LockHolder> holder = ParseHolder(text);
  if (failure == EWOULDBLOCK) {
    return InUse(run_directory, path, holder);
  }
  if (failure != 0 && holder.has_value() && IsAlive(*holder, self)) {
    return InUse(run_directory, path, holder);
  }
  if (failure == 0 && holder.has_value()) {
    LOG(WARNING) << Describe(*holder) << " ended without releasing " << path << "; going on";
  }
  return WriteText(descriptor, path, ToText(self));
}

}  // namespace

std::string Describe(const LockHolder& holder) {
  return absl::StrCat("process ", holder.pid, " on host ", holder.host,
                      holder.job.empty() ? "" : absl::StrCat(" (job ", holder.job, ")"));
}

absl::StatusOr<LockState> ReadRunLock(const std::string& run_directory) {
  PosixFileSystem files;
  const absl::StatusOr<std::string> text = ReadFile(files, run_directory + "/lock");
  if (absl::IsNotFound(text.status())) {
    return LockState();
  }
  RETURN_IF_ERROR(text.status());
  const std::optional<LockHolder> holder = ParseHolder(*text);
  if (!holder.has_value()) {
    return LockState();
  }
  const LockHolder self = LockHolder::ThisProcess();
  using Life = LockState::Life;
  const Life life = holder->host != self.host ? Life::kUnknown
                    : IsAlive(*holder, self)  ? Life::kHeld
                                              : Life::kDead;
  return LockState{life, *holder};
}

LockHolder LockHolder::ThisProcess() {
  std::array<char, 256> host{};
  (void)gethostname(host.data(), host.size() - 1);
  const char* job = getenv("SLURM_JOB_ID");
  return {host.data(), int64_t{getpid()}, job == nullptr ? "" : job};
}

absl::StatusOr<RunLock> RunLock::Acquire(const std::string& run_directory,
                                         const LockHolder& holder) {
  const std::string path = run_directory + "/lock";
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return FileError("create", path, errno);
  }
  if (absl::Status status = TakeOver(descriptor, run_directory, path, holder); !status.ok()) {
    // Only closed: the text belongs to the other holder.
    (void)close(descriptor);
    return status;
  }
  return RunLock(descriptor);
}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  if (this != &other) {
    Release();
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

RunLock::~RunLock() { Release(); }

void RunLock::Release() {
  if (descriptor_ >= 0) {
    // The file stays: removing it could let two later runs lock two different files. Where it
    // cannot be emptied, its text names a process that will be found dead.
    [[maybe_unused]] const int emptied = ftruncate(descriptor_, 0);
    close(descriptor_);
    descriptor_ = -1;
  }
}

}  // namespace panthera
