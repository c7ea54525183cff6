// System calls that do part of their work, are interrupted or fail. The linker leads the calls of
// the code under test to the functions below.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/run_lock.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// What becomes of the next calls of one function: an error number, or 0 for the real call, which
// `most_bytes` limits. After the last entry all calls are real.
struct Script {
  std::deque<int> errors;
  size_t most_bytes = ~size_t{0};
  int calls = 0;

  // Whether the next call fails; sets errno.
  bool NextFails() {
    ++calls;
    if (errors.empty()) {
      return false;
    }
    errno = errors.front();
    errors.pop_front();
    return errno != 0;
  }
};

struct Scripts {
  Script read, write, sync, reserve, lock;
};
Scripts& TheScripts() {
  static Scripts scripts;
  return scripts;
}

}  // namespace

extern "C" {
ssize_t __real_pread(int, void*, size_t, off_t);
ssize_t __real_pwrite(int, const void*, size_t, off_t);
int __real_fsync(int);
int __real_fallocate(int, int, off_t, off_t);
int __real_flock(int, int);

ssize_t __wrap_pread(int descriptor, void* data, size_t bytes, off_t offset) {
  Script& script = TheScripts().read;
  return script.NextFails()
             ? -1
             : __real_pread(descriptor, data, std::min(bytes, script.most_bytes), offset);
}
ssize_t __wrap_pwrite(int descriptor, const void* data, size_t bytes, off_t offset) {
  Script& script = TheScripts().write;
  return script.NextFails()
             ? -1
             : __real_pwrite(descriptor, data, std::min(bytes, script.most_bytes), offset);
}
int __wrap_fsync(int descriptor) {
  return TheScripts().sync.NextFails() ? -1 : __real_fsync(descriptor);
}
int __wrap_fallocate(int descriptor, int mode, off_t offset, off_t bytes) {
  return TheScripts().reserve.NextFails() ? -1 : __real_fallocate(descriptor, mode, offset, bytes);
}
int __wrap_flock(int descriptor, int operation) {
  return TheScripts().lock.NextFails() ? -1 : __real_flock(descriptor, operation);
}
}  // extern "C"

namespace {

class SystemCallTest : public ::testing::Test {
 protected:
  SystemCallTest() { TheScripts() = Scripts(); }
  ~SystemCallTest() override { TheScripts() = Scripts(); }

  testing::TempDir dir_;
  PosixFileSystem files_;
};

TEST_F(SystemCallTest, ShortAndInterruptedWritesAreGoneOnWith) {
  TheScripts().write.most_bytes = 3;
  TheScripts().write.errors = {EINTR, 0, EINTR, EINTR};

  ASSERT_TRUE(WriteFile(files_, dir_.File("f"), "abcdefghij").ok());

  EXPECT_EQ(*ReadFile(files_, dir_.File("f")), "abcdefghij");
  EXPECT_EQ(TheScripts().write.calls, 3 + 4);
}

TEST_F(SystemCallTest, ShortAndInterruptedReadsAreGoneOnWith) {
  ASSERT_TRUE(WriteFile(files_, dir_.File("f"), "abcdefghij").ok());
  TheScripts().read.most_bytes = 4;
  TheScripts().read.errors = {EINTR, 0, EINTR};

  EXPECT_EQ(*ReadFile(files_, dir_.File("f")), "abcdefghij");
  EXPECT_EQ(TheScripts().read.calls, 2 + 3);
}

TEST_F(SystemCallTest, AnInterruptedSyncIsMadeAgain) {
  TheScripts().sync.errors = {EINTR, EINTR};
  ASSERT_TRUE(WriteFile(files_, dir_.File("f"), "x").ok());
  EXPECT_EQ(TheScripts().sync.calls, 3);

  TheScripts().sync = {.errors = {EINTR}};
  ASSERT_TRUE(files_.SyncDirectory(dir_.path()).ok());
  EXPECT_EQ(TheScripts().sync.calls, 2);
}

TEST_F(SystemCallTest, AFailedSyncIsAnError) {
  // Network file systems may find only now that the disk is full.
  TheScripts().sync.errors = {ENOSPC};
  EXPECT_TRUE(absl::IsResourceExhausted(WriteFile(files_, dir_.File("f"), "x")));
  TheScripts().sync.errors = {EIO};
  EXPECT_TRUE(absl::IsUnavailable(files_.SyncDirectory(dir_.path())));
}

TEST_F(SystemCallTest, ADirectoryThatCannotBeSyncedIsNoError) {
  TheScripts().sync.errors = {EINVAL};
  EXPECT_TRUE(files_.SyncDirectory(dir_.path()).ok());
}

TEST_F(SystemCallTest, ReservingIsMadeAgainWhenInterruptedAndLeftOutWhereItCannotBeDone) {
  std::unique_ptr<File> file = *files_.Open(dir_.File("f"), OpenMode::kCreate);
  TheScripts().reserve.errors = {EINTR, EOPNOTSUPP};
  ASSERT_TRUE(file->Allocate(100).ok());
  EXPECT_EQ(*file->Bytes(), 100);
  EXPECT_EQ(TheScripts().reserve.calls, 2);

  TheScripts().reserve.errors = {ENOSPC};
  const absl::Status full = file->Allocate(200);
  EXPECT_TRUE(absl::IsResourceExhausted(full));
  EXPECT_THAT(std::string(full.message()),
              AllOf(HasSubstr("reserve space for " + dir_.File("f")), HasSubstr("free some")));
}

TEST_F(SystemCallTest, AFileAboveTheLimitIsNamedWithTheLimit) {
  TheScripts().write.errors = {EFBIG};
  const absl::Status status = WriteFile(files_, dir_.File("f"), "x");
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ulimit -f"));
}

// Where the file system has no locks, the text decides.
class NoLocksTest : public SystemCallTest {
 protected:
  absl::Status AcquireAfter(const LockHolder& holder) {
    const std::string text = "host=" + holder.host + "\npid=" + std::to_string(holder.pid) +
                             "\njob=" + holder.job + "\n";
    EXPECT_TRUE(WriteFile(files_, dir_.File("lock"), text).ok());
    TheScripts().lock.errors = {ENOLCK};
    return RunLock::Acquire(dir_.path(), LockHolder::ThisProcess()).status();
  }
};

TEST_F(NoLocksTest, AHolderOnAnotherHostIsBelievedAndTheWayOutIsNamed) {
  const absl::Status status = AcquireAfter({"node-far-away", 17, "job42"});

  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("process 17 on host node-far-away (job job42)"),
                    HasSubstr("remove " + dir_.File("lock"))));
}

TEST_F(NoLocksTest, AHolderOnThisHostCountsWhileItLives) {
  LockHolder holder = LockHolder::ThisProcess();
  EXPECT_TRUE(absl::IsFailedPrecondition(AcquireAfter(holder)));
  // Above the largest number that Linux gives to a process.
  holder.pid = int64_t{1} << 23;
  EXPECT_TRUE(AcquireAfter(holder).ok());
}

TEST_F(NoLocksTest, AReleasedLockCountsForNobody) {
  ASSERT_TRUE(WriteFile(files_, dir_.File("lock"), "").ok());
  TheScripts().lock.errors = {EOPNOTSUPP};
  EXPECT_TRUE(RunLock::Acquire(dir_.path(), LockHolder::ThisProcess()).ok());
}

}  // namespace
}  // namespace panthera
