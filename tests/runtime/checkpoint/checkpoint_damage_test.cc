// Checkpoints that were damaged after they had been saved.

#include <cstring>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/stepping_file_system.h"
#include "tests/runtime/checkpoint/test_tensors.h"
#include "tests/support/rank_harness.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fill;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LogicalTensor;
using testing::MakeTensor;
using testing::RankPieces;
using testing::Split;
using testing::SteppingFileSystem;

// A run with checkpoints of steps 10 and 20, of which tests damage the newer one.
class CheckpointDamageTest : public ::testing::Test {
 protected:
  CheckpointDamageTest() {
    Save(10);
    Save(20);
  }

  void Save(int64_t step) {
    RankPieces pieces(tensors_, 0, 1, Split::kRuns, Fill::kValues);
    CheckpointContents contents;
    contents.step = step;
    contents.sets = {{"model", pieces.pieces(), {}}};
    contents.small_files = {{"state.json", "{\"samples\":77}"}};
    const absl::Status status = SaveCheckpoint(files_, group_, dir_.path(), contents, {});
    ASSERT_TRUE(status.ok()) << status;
  }

  std::string Newest(const std::string& file) const {
    return CheckpointDirectory(dir_.path(), 20) + "/" + file;
  }

  void FlipBit(const std::string& path, size_t byte) {
    std::string contents = *ReadFile(files_, path);
    contents.at(byte) = static_cast<char>(contents[byte] ^ 4);
    ASSERT_TRUE(WriteFile(files_, path, contents).ok());
  }

  // The reason for which the newer checkpoint is skipped in favour of the older one.
  std::string SkipReason() {
    const absl::StatusOr<FoundCheckpoint> found = FindNewest(files_, group_, dir_.path());
    EXPECT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->checkpoint.value().step(), 10);
    EXPECT_EQ(found->skipped.size(), 1U);
    return found->skipped.at(0);
  }

  testing::TempDir dir_;
  PosixFileSystem files_;
  SelfHostGroup group_;
  // Rows of the first tensor end inside its second block of 4 MiB.
  std::vector<LogicalTensor> tensors_ = {MakeTensor("a", {1200, 1024}, DType::kF32, 1),
                                         MakeTensor("b", {10}, DType::kF32, 2)};
};

TEST_F(CheckpointDamageTest, WithoutDamageTheNewestIsFound) {
  const absl::StatusOr<FoundCheckpoint> found = FindNewest(files_, group_, dir_.path());

  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->checkpoint->step(), 20);
  EXPECT_THAT(found->skipped, IsEmpty());
}

TEST_F(CheckpointDamageTest, BeforeStepLimitsTheSearch) {
  EXPECT_EQ(FindNewest(files_, group_, dir_.path(), 20)->checkpoint->step(), 10);
  EXPECT_FALSE(FindNewest(files_, group_, dir_.path(), 10)->checkpoint.has_value());
}

TEST_F(CheckpointDamageTest, ARunWithoutCheckpointsHasNone) {
  const absl::StatusOr<FoundCheckpoint> found = FindNewest(files_, group_, dir_.File("other_run"));

  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FALSE(found->checkpoint.has_value());
}

TEST_F(CheckpointDamageTest, ACutOffTensorFileIsSkipped) {
  const auto bytes = std::filesystem::file_size(Newest("model.safetensors"));
  std::filesystem::resize_file(Newest("model.safetensors"), bytes - 1);

  EXPECT_THAT(SkipReason(), AllOf(HasSubstr("step_00000020/model.safetensors is damaged: it has "),
                                  HasSubstr("bytes, the manifest says")));
}

TEST_F(CheckpointDamageTest, AMissingFileIsSkipped) {
  ASSERT_TRUE(files_.Remove(Newest("state.json")).ok());

  EXPECT_THAT(SkipReason(), HasSubstr("state.json"));
}

TEST_F(CheckpointDamageTest, AMissingManifestIsSkipped) {
  ASSERT_TRUE(files_.Remove(Newest("manifest.json")).ok());

  EXPECT_THAT(SkipReason(), HasSubstr("has no manifest.json"));
}

TEST_F(CheckpointDamageTest, ADamagedManifestIsSkipped) {
  FlipBit(Newest("manifest.json"), 300);

  EXPECT_THAT(SkipReason(), HasSubstr("manifest.json is not valid"));
}

// A whole manifest of a version that this program does not know.
class OtherVersionTest : public CheckpointDamageTest {
 protected:
  OtherVersionTest() {
    Manifest manifest = *ParseManifest(*ReadFile(files_, Newest("manifest.json")));
    manifest.version = 9;
    manifest.program = "panthera 3.0";
    EXPECT_TRUE(WriteFile(files_, Newest("manifest.json"), ManifestJson(manifest)).ok());
  }
};

TEST_F(OtherVersionTest, IsNotPassedOverForAnOlderCheckpoint) {
  testing::RunRanks(2, [&](testing::RankWorld& world) {
    const absl::Status found = FindNewest(files_, world.host(), dir_.path()).status();
    EXPECT_TRUE(IsOtherVersion(found)) << found;
    EXPECT_THAT(std::string(found.message()),
                AllOf(HasSubstr("step_00000020/manifest.json has format version 9, written by "
                                "panthera 3.0; this program reads version 1: use a newer"),
                      HasSubstr("move its directory elsewhere")));
  });
}

TEST_F(OtherVersionTest, StaysWhenOthersAreRemoved) {
  Save(30);
  Save(40);

  Save(50);

  EXPECT_THAT(*files_.List(dir_.File("checkpoints")), ::testing::SizeIs(3));
  EXPECT_TRUE(std::filesystem::exists(Newest("manifest.json")));
}

TEST_F(CheckpointDamageTest, AFlippedBitInASmallFileIsSkipped) {
  FlipBit(Newest("state.json"), 5);

  EXPECT_THAT(SkipReason(), HasSubstr("state.json is damaged"));
}

TEST_F(CheckpointDamageTest, AFlippedBitInATensorHeaderIsSkipped) {
  FlipBit(Newest("model.safetensors"), 40);

  EXPECT_THAT(SkipReason(), HasSubstr("model.safetensors is damaged"));
}

TEST_F(CheckpointDamageTest, NumbersThatAreNotFiniteAreSkipped) {
  const uint32_t infinity = 0x7F800000;
  std::memcpy(tensors_[1].values.data(), &infinity, sizeof(infinity));
  Save(20);

  EXPECT_THAT(SkipReason(), AllOf(HasSubstr("step_00000020: "), HasSubstr("not finite")));
}

TEST_F(CheckpointDamageTest, AnUnfinishedSaveIsMentioned) {
  ASSERT_TRUE(files_.MakeDirectories(dir_.File("checkpoints/step_00000030.tmp")).ok());

  const absl::StatusOr<FoundCheckpoint> found = FindNewest(files_, group_, dir_.path());

  EXPECT_EQ(found->checkpoint->step(), 20);
  EXPECT_THAT(found->unfinished, ElementsAre("step_00000030.tmp: its save was not finished"));
}

TEST_F(CheckpointDamageTest, AnUnfinishedSaveLeavesNothingInTheNextOne) {
  const std::string unfinished = CheckpointDirectory(dir_.path(), 30) + ".tmp";
  ASSERT_TRUE(files_.MakeDirectories(unfinished).ok());
  ASSERT_TRUE(WriteFile(files_, unfinished + "/model-00001-of-00002.safetensors", "half").ok());

  Save(30);

  EXPECT_EQ(files_.List(CheckpointDirectory(dir_.path(), 30))->size(), 3U);
}

TEST_F(CheckpointDamageTest, AFlippedBitInATensorIsFoundByEveryReaderOfItsBlock) {
  const Checkpoint checkpoint = *FindNewest(files_, group_, dir_.path())->checkpoint;
  const TensorSetRecord& set = *checkpoint.FindSet("model");
  // In the second block of tensor "a": element 4 MiB / 4 bytes and after.
  const int64_t begin = checkpoint.TensorBegin(set, set.tensors.at(0));
  FlipBit(Newest("model.safetensors"), static_cast<size_t>(begin + (int64_t{4} << 20) + 9));

  // Of three ranks the first reads only from the first block, the second from both, the third only
  // from the second one; all get the error.
  testing::RunRanks(3, [&](testing::RankWorld& world) {
    RankPieces pieces(tensors_, world.rank(), 3, Split::kRuns, Fill::kZero);
    const absl::Status status =
        LoadPieces(files_, world.host(), checkpoint, "model", pieces.pieces());
    EXPECT_TRUE(absl::IsDataLoss(status));
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(Newest("model.safetensors")),
                                                     HasSubstr("tensor a"), HasSubstr("block 1")));
  });
}

TEST_F(CheckpointDamageTest, ADamagedBlockThatNobodyWantsDoesNoHarm) {
  const Checkpoint checkpoint = *FindNewest(files_, group_, dir_.path())->checkpoint;
  const TensorSetRecord& set = *checkpoint.FindSet("model");
  const int64_t begin = checkpoint.TensorBegin(set, set.tensors.at(0));
  FlipBit(Newest("model.safetensors"), static_cast<size_t>(begin + (int64_t{4} << 20)));

  RankPieces first_of_three(tensors_, 0, 3, Split::kRuns, Fill::kZero);

  EXPECT_TRUE(LoadPieces(files_, group_, checkpoint, "model", first_of_three.pieces()).ok());
}

TEST_F(CheckpointDamageTest, ADiskThatFailsOnceNeverMakesAnOlderCheckpointTheNewest) {
  bool failed = true;
  for (int64_t operation = 0; failed; ++operation) {
    SteppingFileSystem faulty(operation, SteppingFileSystem::Failure::kOnce);
    const absl::StatusOr<FoundCheckpoint> found = FindNewest(faulty, group_, dir_.path());
    failed = faulty.operations() > operation;
    EXPECT_EQ(found.ok(), !failed) << operation;
    if (found.ok()) {
      EXPECT_EQ(found->checkpoint.value().step(), 20) << operation;
    }
  }
}

}  // namespace
}  // namespace panthera
