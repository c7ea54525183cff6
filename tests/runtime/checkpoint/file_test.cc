#include "runtime/checkpoint/file.h"

#include <cerrno>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST(FileTest, PartsWrittenThroughTwoHandlesJoin) {
  testing::TempDir dir;
  PosixFileSystem files;
  std::unique_ptr<File> first = *files.Open(dir.File("f"), OpenMode::kCreate);
  ASSERT_TRUE(first->Allocate(8).ok());
  std::unique_ptr<File> second = *files.Open(dir.File("f"), OpenMode::kWrite);

  ASSERT_TRUE(second->WriteAt(4, Bytes("wxyz")).ok());
  ASSERT_TRUE(first->WriteAt(0, Bytes("abcd")).ok());
  ASSERT_TRUE(first->Sync().ok());
  ASSERT_TRUE(first->Close().ok());
  ASSERT_TRUE(second->Close().ok());

  EXPECT_EQ(*ReadFile(files, dir.File("f")), "abcdwxyz");
}

TEST(FileTest, AllocateSetsTheLengthAndCreateForgetsOldContents) {
  testing::TempDir dir;
  PosixFileSystem files;
  ASSERT_TRUE(WriteFile(files, dir.File("f"), "old contents").ok());

  std::unique_ptr<File> file = *files.Open(dir.File("f"), OpenMode::kCreate);

  EXPECT_EQ(*file->Bytes(), 0);
  ASSERT_TRUE(file->Allocate(5).ok());
  EXPECT_EQ(*file->Bytes(), 5);
  EXPECT_EQ(*ReadFile(files, dir.File("f")), std::string(5, '\0'));
}

TEST(FileTest, ReadingBeyondTheEndIsDataLossThatNamesTheFile) {
  testing::TempDir dir;
  PosixFileSystem files;
  ASSERT_TRUE(WriteFile(files, dir.File("f"), "abc").ok());
  std::unique_ptr<File> file = *files.Open(dir.File("f"), OpenMode::kRead);
  std::string buffer(4, ' ');

  const absl::Status status = file->ReadAt(1, std::as_writable_bytes(std::span(buffer)));

  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(dir.File("f")), HasSubstr("byte 3")));
}

TEST(FileTest, AFileThatIsLongerThanSensibleIsNotRead) {
  testing::TempDir dir;
  PosixFileSystem files;
  ASSERT_TRUE(WriteFile(files, dir.File("f"), "abc").ok());

  EXPECT_EQ(*ReadFileUpTo(files, dir.File("f"), 3), "abc");
  const absl::Status status = ReadFileUpTo(files, dir.File("f"), 2).status();

  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(dir.File("f")), HasSubstr("3 bytes"), HasSubstr("fetch it again")));
}

TEST(FileTest, AFullDiskIsNamedWithWhatHelps) {
  PosixFileSystem files;
  absl::StatusOr<std::unique_ptr<File>> full = files.Open("/dev/full", OpenMode::kWrite);
  ASSERT_TRUE(full.ok()) << full.status();

  const absl::Status status = (*full)->WriteAt(0, Bytes("x"));

  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("cannot write /dev/full: No space left"), HasSubstr("free some")));
}

TEST(FileTest, ErrorsCarryACodeForTheirCause) {
  EXPECT_TRUE(absl::IsPermissionDenied(FileError("create", "/x", EACCES)));
  EXPECT_TRUE(absl::IsPermissionDenied(FileError("create", "/x", EROFS)));
  EXPECT_TRUE(absl::IsResourceExhausted(FileError("write", "/x", EDQUOT)));
  EXPECT_TRUE(absl::IsNotFound(FileError("read", "/x", ENOENT)));
  EXPECT_TRUE(absl::IsUnavailable(FileError("read", "/x", EIO)));
}

TEST(FileTest, ListIsSortedAndTellsDirectories) {
  testing::TempDir dir;
  PosixFileSystem files;
  ASSERT_TRUE(WriteFile(files, dir.File("b"), "").ok());
  ASSERT_TRUE(files.MakeDirectories(dir.File("a/inner")).ok());

  const std::vector<DirectoryEntry> entries = *files.List(dir.path());

  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_TRUE(entries[0].is_directory);
  EXPECT_EQ(entries[1].name, "b");
  EXPECT_FALSE(entries[1].is_directory);
  EXPECT_TRUE(absl::IsNotFound(files.List(dir.File("missing")).status()));
}

TEST(FileTest, RemoveTreeRemovesEverythingAndForgivesAbsence) {
  testing::TempDir dir;
  PosixFileSystem files;
  ASSERT_TRUE(files.MakeDirectories(dir.File("a/b/c")).ok());
  ASSERT_TRUE(WriteFile(files, dir.File("a/b/f"), "x").ok());

  EXPECT_TRUE(RemoveTree(files, dir.File("a")).ok());
  EXPECT_TRUE(RemoveTree(files, dir.File("a")).ok());

  EXPECT_THAT(*files.List(dir.path()), IsEmpty());
}

}  // namespace
}  // namespace panthera
