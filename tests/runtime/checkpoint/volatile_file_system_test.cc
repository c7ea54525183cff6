// The model of a disk that the tests of power failures stand on.

#include "tests/runtime/checkpoint/volatile_file_system.h"

#include <gtest/gtest.h>

namespace panthera::testing {
namespace {

constexpr auto kNone = [](int64_t) { return false; };
constexpr auto kAll = [](int64_t) { return true; };

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

// What a file holds when only the changes that `survives` tells outlast a power failure.
std::string Left(const VolatileFileSystem& files, absl::FunctionRef<bool(int64_t)> survives,
                 const std::string& path = "/f") {
  VolatileFileSystem left(files.disk().AfterPowerFailure(survives));
  const absl::StatusOr<std::string> contents = ReadFile(left, path);
  return contents.ok() ? *contents : "(none)";
}

TEST(VolatileFileSystemTest, APowerFailureTakesOrLeavesWhatWasNotSynced) {
  VolatileFileSystem files;
  std::unique_ptr<File> file = *files.Open("/f", OpenMode::kCreate);
  ASSERT_TRUE(file->WriteAt(0, Bytes("abcd")).ok());

  EXPECT_EQ(*ReadFile(files, "/f"), "abcd");
  EXPECT_EQ(Left(files, kNone), "(none)");
  EXPECT_EQ(Left(files, kAll), "abcd");
  // Changes 0 and 1 are the halves of the write, 2 is the name.
  EXPECT_EQ(Left(files, [](int64_t change) { return change != 1; }), "ab");
  EXPECT_EQ(Left(files, [](int64_t change) { return change == 2; }), "");
}

TEST(VolatileFileSystemTest, SyncingAFileKeepsItsBytesAndSyncingTheDirectoryItsName) {
  VolatileFileSystem files;
  std::unique_ptr<File> file = *files.Open("/f", OpenMode::kCreate);
  ASSERT_TRUE(file->WriteAt(0, Bytes("abcd")).ok());

  ASSERT_TRUE(file->Sync().ok());
  EXPECT_EQ(Left(files, kNone), "(none)");
  ASSERT_TRUE(files.SyncDirectory("/").ok());
  EXPECT_EQ(Left(files, kNone), "abcd");
  ASSERT_TRUE(file->WriteAt(2, Bytes("xy")).ok());
  EXPECT_EQ(Left(files, kNone), "abcd");
  EXPECT_EQ(Left(files, kAll), "abxy");
}

TEST(VolatileFileSystemTest, ARenameIsLostOrKeptAsAWhole) {
  VolatileFileSystem files;
  ASSERT_TRUE(files.MakeDirectories("/a").ok());
  ASSERT_TRUE(WriteFile(files, "/a/f", "text").ok());
  ASSERT_TRUE(files.SyncDirectory("/a").ok());
  ASSERT_TRUE(files.Rename("/a", "/b").ok());

  EXPECT_EQ(Left(files, kNone, "/a/f"), "text");
  EXPECT_EQ(Left(files, kNone, "/b/f"), "(none)");
  EXPECT_EQ(Left(files, kAll, "/a/f"), "(none)");
  EXPECT_EQ(Left(files, kAll, "/b/f"), "text");
}

TEST(VolatileFileSystemTest, AFullDiskTakesWhatFits) {
  VolatileFileSystem files;
  files.set_capacity(7);
  EXPECT_TRUE(absl::IsResourceExhausted(WriteFile(files, "/f", "0123456789")));
  EXPECT_EQ(*ReadFile(files, "/f"), "01234");
  EXPECT_EQ(files.disk().used_bytes(), 5);
  ASSERT_TRUE(files.Remove("/f").ok());
  EXPECT_TRUE(WriteFile(files, "/f", "0123456").ok());
  EXPECT_TRUE(absl::IsResourceExhausted((*files.Open("/g", OpenMode::kCreate))->Allocate(1)));
}

}  // namespace
}  // namespace panthera::testing
