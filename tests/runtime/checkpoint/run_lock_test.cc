#include "runtime/checkpoint/run_lock.h"

#include <signal.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/file.h"
#include "tests/support/temp_dir.h"
#include <sys/wait.h>

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(RunLockTest, ASecondRunIsRefusedNamingTheHolder) {
  testing::TempDir dir;
  absl::StatusOr<RunLock> first = RunLock::Acquire(dir.path(), {"node7", 1234, "job42"});
  ASSERT_TRUE(first.ok()) << first.status();

  const absl::Status second = RunLock::Acquire(dir.path(), {"node8", 99, ""}).status();

  EXPECT_TRUE(absl::IsFailedPrecondition(second));
  EXPECT_THAT(std::string(second.message()),
              AllOf(HasSubstr("process 1234 on host node7"), HasSubstr("(job job42)"),
                    HasSubstr(dir.path())));
  PosixFileSystem files;
  EXPECT_EQ(*ReadFile(files, dir.File("lock")), "host=node7\npid=1234\njob=job42\n");
}

TEST(RunLockTest, TheSystemsLockCountsEvenIfTheTextNamesNobody) {
  testing::TempDir dir;
  const absl::StatusOr<RunLock> first = RunLock::Acquire(dir.path(), LockHolder::ThisProcess());
  ASSERT_TRUE(first.ok());
  PosixFileSystem files;
  ASSERT_TRUE(WriteFile(files, dir.File("lock"), "host=").ok());

  const absl::Status second = RunLock::Acquire(dir.path(), LockHolder::ThisProcess()).status();

  EXPECT_TRUE(absl::IsFailedPrecondition(second));
  EXPECT_THAT(std::string(second.message()), HasSubstr("in use by another process"));
}

TEST(RunLockTest, AReleasedLockCanBeTakenAgain) {
  testing::TempDir dir;
  { ASSERT_TRUE(RunLock::Acquire(dir.path(), LockHolder::ThisProcess()).ok()); }

  PosixFileSystem files;
  EXPECT_EQ(*ReadFile(files, dir.File("lock")), "");
  EXPECT_TRUE(RunLock::Acquire(dir.path(), LockHolder::ThisProcess()).ok());
}

TEST(RunLockTest, MovingKeepsTheLock) {
  testing::TempDir dir;
  absl::StatusOr<RunLock> first = RunLock::Acquire(dir.path(), LockHolder::ThisProcess());
  ASSERT_TRUE(first.ok());

  const RunLock moved = *std::move(first);

  EXPECT_FALSE(RunLock::Acquire(dir.path(), LockHolder::ThisProcess()).ok());
}

TEST(RunLockTest, ARunOfAnotherProcessIsRefusedUntilItDies) {
  testing::TempDir dir;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const absl::StatusOr<RunLock> lock = RunLock::Acquire(dir.path(), LockHolder::ThisProcess());
    (void)!write(ready[1], lock.ok() ? "y" : "n", 1);
    pause();
  }
  char answer = ' ';
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');

  const absl::Status refused = RunLock::Acquire(dir.path(), LockHolder::ThisProcess()).status();

  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("in use by process " + std::to_string(child)));
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(RunLock::Acquire(dir.path(), LockHolder::ThisProcess()).ok());
}

TEST(RunLockTest, TheLockOfADeadProcessIsTakenOver) {
  testing::TempDir dir;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // _exit runs no destructor, as a kill would not.
    const absl::StatusOr<RunLock> lock = RunLock::Acquire(dir.path(), LockHolder::ThisProcess());
    _exit(lock.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  PosixFileSystem files;
  ASSERT_THAT(*ReadFile(files, dir.File("lock")), HasSubstr("pid=" + std::to_string(child)));

  const absl::StatusOr<RunLock> lock = RunLock::Acquire(dir.path(), LockHolder::ThisProcess());

  EXPECT_TRUE(lock.ok()) << lock.status();
  EXPECT_THAT(*ReadFile(files, dir.File("lock")), HasSubstr("pid=" + std::to_string(getpid())));
}

TEST(RunLockTest, AMissingRunDirectoryIsNamed) {
  const absl::Status status =
      RunLock::Acquire("/nonexistent/run", LockHolder::ThisProcess()).status();

  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/run/lock"));
}

}  // namespace
}  // namespace panthera
