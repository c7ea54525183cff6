#include "launcher/run_directory.h"

#include <filesystem>

#include <gmock/gmock.h>

#include "tests/support/rank_harness.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::RankWorld;
using testing::RunRanks;

// Writes to disk, and records the last parts of the paths that are renamed and synced.
class RecordingFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    return files_.Open(path, mode);
  }
  absl::Status MakeDirectory(const std::string& path) override {
    return files_.MakeDirectory(path);
  }
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override {
    return files_.List(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    renamed.push_back(std::filesystem::path(from).filename());
    return files_.Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return files_.Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override {
    synced.push_back(path);
    return files_.SyncDirectory(path);
  }

  std::vector<std::string> renamed;
  std::vector<std::string> synced;

 private:
  PosixFileSystem files_;
};

class RunDirectoryTest : public ::testing::Test {
 protected:
  void Write(const std::string& name) {
    const std::filesystem::path path = dir_.File(name);
    ASSERT_EQ(files_.MakeDirectories(path.parent_path()), absl::OkStatus());
    ASSERT_EQ(WriteFile(files_, path, name), absl::OkStatus());
  }

  testing::TempDir dir_;
  RecordingFileSystem files_;
};

TEST_F(RunDirectoryTest, SetAsideTakesTheFirstFreeNumberAndLeavesTheLock) {
  for (const char* name : {"config.toml", "lock", "set_aside_1/config.toml", "set_aside_3/a"}) {
    Write(name);
  }

  ASSERT_EQ(SetRunAside(files_, dir_.path()), absl::OkStatus());

  EXPECT_EQ(*ReadFile(files_, dir_.File("set_aside_2/config.toml")), "config.toml");
  EXPECT_EQ(*ReadFile(files_, dir_.File("set_aside_1/config.toml")), "set_aside_1/config.toml");
  EXPECT_TRUE(std::filesystem::exists(dir_.File("lock")));
  EXPECT_FALSE(std::filesystem::exists(dir_.File("config.toml")));
}

TEST_F(RunDirectoryTest, SetAsideMovesCheckpointsFirstAndSyncsBothDirectories) {
  for (const char* name : {"a.txt", "checkpoints/step_00000001/manifest.json", "metrics.jsonl"}) {
    Write(name);
  }
  files_.synced.clear();
  files_.renamed.clear();

  ASSERT_EQ(SetRunAside(files_, dir_.path()), absl::OkStatus());

  EXPECT_THAT(files_.renamed, ElementsAre("checkpoints", "a.txt", "metrics.jsonl"));
  // The new directory's name first: what is moved must not be in a directory that may be lost.
  EXPECT_THAT(files_.synced, ElementsAre(dir_.path(), dir_.File("set_aside_1"), dir_.path()));
}

TEST_F(RunDirectoryTest, WithNothingToSetAsideNothingChanges) {
  Write("lock");

  ASSERT_EQ(SetRunAside(files_, dir_.path()), absl::OkStatus());

  EXPECT_THAT(files_.renamed, IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(dir_.File("set_aside_1")));
}

TEST_F(RunDirectoryTest, AStepBesideACheckpointDirectoryIsRefused) {
  Write("checkpoints/step_00000010/manifest.json");

  RunRanks(2, [&](RankWorld& world) {
    PosixFileSystem files;
    const std::string path = CheckpointDirectory(dir_.path(), 10);
    const absl::StatusOr<SavedModel> saved = OpenSavedModel(files, world.host(), path, 20);
    ASSERT_FALSE(saved.ok());
    EXPECT_THAT(std::string(saved.status().message()),
                AllOf(HasSubstr("is a checkpoint itself"), HasSubstr("--step 20")));
  });
}

TEST_F(RunDirectoryTest, Rank0DecidesWhatAPathIs) {
  // Rank 1 would search its path as a run and wait for others that do not.
  Write("checkpoints/step_00000010/manifest.json");

  RunRanks(2, [&](RankWorld& world) {
    PosixFileSystem files;
    const std::string path =
        world.rank() == 0 ? CheckpointDirectory(dir_.path(), 10) : dir_.File("not_there");
    const absl::StatusOr<SavedModel> saved =
        OpenSavedModel(files, world.host(), path, std::nullopt);
    ASSERT_FALSE(saved.ok());
    EXPECT_THAT(std::string(saved.status().message()), HasSubstr("manifest.json is not valid"));
  });
}

TEST_F(RunDirectoryTest, ADirectoryWithoutCheckpointsIsRefused) {
  RunRanks(2, [&](RankWorld& world) {
    PosixFileSystem files;
    const absl::StatusOr<SavedModel> saved =
        OpenSavedModel(files, world.host(), dir_.path(), std::nullopt);
    ASSERT_FALSE(saved.ok());
    EXPECT_THAT(std::string(saved.status().message()), HasSubstr("give a run directory"));
  });
}

}  // namespace
}  // namespace panthera
