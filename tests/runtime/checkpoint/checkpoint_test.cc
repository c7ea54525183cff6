#include "runtime/checkpoint/checkpoint.h"

#include <bit>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/runtime/checkpoint/stepping_file_system.h"
#include "tests/runtime/checkpoint/test_tensors.h"
#include "tests/support/rank_harness.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using testing::ExampleTensors;
using testing::Fill;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LogicalTensor;
using testing::MakeTensor;
using testing::RankPieces;
using testing::RankWorld;
using testing::RunRanks;
using testing::Split;
using testing::SteppingFileSystem;
using testing::TempDir;

// What the ranks of a job save: all tensors as the weights, those of another seed as the momentum.
void SaveExample(RankWorld& world, FileSystem& files, const std::string& run, Split split,
                 int64_t step) {
  RankPieces weights(ExampleTensors(1), world.rank(), world.size(), split, Fill::kValues);
  RankPieces momentum(ExampleTensors(7), world.rank(), world.size(), split, Fill::kValues);
  CheckpointContents contents;
  contents.step = step;
  contents.program = "test";
  contents.sets = {{"model", weights.pieces(), {}}, {"momentum", momentum.pieces(), {}}};
  if (world.rank() == 0) {
    contents.small_files = {{"state.json", "{\"samples\":12}"}};
  }
  const absl::Status status = SaveCheckpoint(files, world.host(), run, contents, {});
  EXPECT_TRUE(status.ok()) << status;
}

void ExpectExampleLoads(RankWorld& world, FileSystem& files, const std::string& run, Split split) {
  const absl::StatusOr<FoundCheckpoint> found = FindNewest(files, world.host(), run);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_TRUE(found->checkpoint.has_value());
  EXPECT_THAT(found->skipped, IsEmpty());
  EXPECT_EQ(*found->checkpoint->ReadSmallFile(files, "state.json"), "{\"samples\":12}");
  for (const auto& [set, seed] : {std::pair("model", uint64_t{1}), {"momentum", uint64_t{7}}}) {
    RankPieces pieces(ExampleTensors(seed), world.rank(), world.size(), split, Fill::kZero);
    const absl::Status status =
        LoadPieces(files, world.host(), *found->checkpoint, set, pieces.pieces());
    ASSERT_TRUE(status.ok()) << status;
    pieces.ExpectValues(ExampleTensors(seed));
  }
}

struct Resharding {
  int save_ranks;
  Split save_split;
  int load_ranks;
  Split load_split;
};

class ReshardingTest : public ::testing::TestWithParam<Resharding> {};

TEST_P(ReshardingTest, EveryElementComesBack) {
  const Resharding& param = GetParam();
  TempDir dir;
  PosixFileSystem files;

  RunRanks(param.save_ranks, [&](RankWorld& world) {
    SaveExample(world, files, dir.path(), param.save_split, /*step=*/5);
  });

  RunRanks(param.load_ranks, [&](RankWorld& world) {
    ExpectExampleLoads(world, files, dir.path(), param.load_split);
  });
}

INSTANTIATE_TEST_SUITE_P(Meshes, ReshardingTest,
                         ::testing::Values(Resharding{1, Split::kRuns, 1, Split::kRuns},
                                           Resharding{1, Split::kRuns, 3, Split::kRuns},
                                           Resharding{2, Split::kRuns, 2, Split::kRuns},
                                           Resharding{2, Split::kRuns, 3, Split::kRuns},
                                           Resharding{3, Split::kRuns, 1, Split::kRuns},
                                           Resharding{3, Split::kRuns, 2, Split::kColumns},
                                           Resharding{2, Split::kColumns, 3, Split::kColumns},
                                           Resharding{3, Split::kColumns, 1, Split::kRuns}));

TEST(CheckpointTest, FilesAreTheSameBytesForEverySharding) {
  TempDir dir;
  PosixFileSystem files;
  const auto save = [&](int ranks, Split split, const std::string& run) {
    EXPECT_TRUE(files.MakeDirectories(dir.File(run)).ok());
    RunRanks(ranks, [&](RankWorld& world) { SaveExample(world, files, dir.File(run), split, 5); });
    return *ReadFile(files, CheckpointDirectory(dir.File(run), 5) + "/model.safetensors");
  };

  const std::string one = save(1, Split::kRuns, "one");

  EXPECT_TRUE(one == save(3, Split::kRuns, "three"));
  EXPECT_TRUE(one == save(2, Split::kColumns, "columns"));
}

TEST(CheckpointTest, TensorsLieInTheFileByWidthAndNameAndBitForBit) {
  TempDir dir;
  PosixFileSystem files;
  SelfHostGroup group;
  const std::vector<LogicalTensor> tensors = ExampleTensors(1);
  RankPieces pieces(tensors, 0, 1, Split::kRuns, Fill::kValues);
  CheckpointContents contents;
  contents.step = 5;
  contents.sets = {{"model", pieces.pieces(), {}}};
  ASSERT_TRUE(SaveCheckpoint(files, group, dir.path(), contents, {}).ok());

  const std::string path = dir.File("checkpoints/step_00000005/model.safetensors");
  const std::string contents_read = *ReadFile(files, path);
  std::unique_ptr<File> file = *files.Open(path, OpenMode::kRead);
  const SafetensorsHeader header = *ReadSafetensorsHeader(*file, path);

  std::string order;
  for (const SafetensorsEntry& entry : header.entries) {
    order += entry.tensor.name + " ";
    for (const LogicalTensor& tensor : tensors) {
      if (tensor.description.name == entry.tensor.name) {
        EXPECT_EQ(contents_read.compare(static_cast<size_t>(entry.begin), tensor.values.size(),
                                        reinterpret_cast<const char*>(tensor.values.data()),
                                        tensor.values.size()),
                  0)
            << entry.tensor.name;
      }
    }
  }
  EXPECT_EQ(order,
            "model.embed_tokens.weight model.norm.weight scalar model.layers.10.up.weight "
            "model.layers.2.up.weight bits ");
}

TEST(CheckpointTest, LargeSetsGetSeveralFilesAndAnIndex) {
  TempDir dir;
  PosixFileSystem files;
  SelfHostGroup group;
  RankPieces pieces(ExampleTensors(1), 0, 1, Split::kRuns, Fill::kValues);
  CheckpointContents contents;
  contents.sets = {{"model", pieces.pieces(), {}}};
  contents.max_file_bytes = 2000;
  ASSERT_TRUE(SaveCheckpoint(files, group, dir.path(), contents, {}).ok());

  const std::string directory = CheckpointDirectory(dir.path(), 0);
  EXPECT_THAT(*ReadFile(files, directory + "/model.safetensors.index.json"),
              HasSubstr("\"model.norm.weight\": \"model-00002-of-00003.safetensors\""));
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(files, directory);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  RankPieces loaded(ExampleTensors(1), 0, 1, Split::kRuns, Fill::kZero);
  ASSERT_TRUE(LoadPieces(files, group, *checkpoint, "model", loaded.pieces()).ok());
  loaded.ExpectValues(ExampleTensors(1));
}

// A checkpoint with one set, opened.
Checkpoint SaveAndOpen(const std::string& run, std::vector<TensorSet> sets, int64_t step = 1) {
  PosixFileSystem files;
  SelfHostGroup group;
  CheckpointContents contents;
  contents.step = step;
  contents.sets = std::move(sets);
  const absl::Status status = SaveCheckpoint(files, group, run, contents, {});
  EXPECT_TRUE(status.ok()) << status;
  return *Checkpoint::Open(files, CheckpointDirectory(run, step));
}

TEST(CheckpointTest, DerivedTensorsNeedNotBeLoaded) {
  TempDir dir;
  PosixFileSystem files;
  SelfHostGroup group;
  const LogicalTensor table = MakeTensor("table", {4, 6}, DType::kF32, 1);
  const LogicalTensor head = MakeTensor("lm_head.weight", {4, 6}, DType::kF32, 2);
  RankPieces saved({table, head}, 0, 1, Split::kRuns, Fill::kValues);
  const Checkpoint checkpoint =
      SaveAndOpen(dir.path(), {{"model", saved.pieces(), {"lm_head.weight"}}});

  RankPieces loaded({table}, 0, 1, Split::kRuns, Fill::kZero);

  EXPECT_TRUE(LoadPieces(files, group, checkpoint, "model", loaded.pieces()).ok());
  loaded.ExpectValues({table});
}

TEST(CheckpointTest, TensorsThatDoNotMatchAreNamedWithBothSides) {
  TempDir dir;
  PosixFileSystem files;
  SelfHostGroup group;
  const LogicalTensor a = MakeTensor("a", {4, 6}, DType::kF32, 1);
  const LogicalTensor b = MakeTensor("b", {3}, DType::kF32, 2);
  RankPieces saved({a, b}, 0, 1, Split::kRuns, Fill::kValues);
  const Checkpoint checkpoint = SaveAndOpen(dir.path(), {{"model", saved.pieces(), {}}});
  const auto load = [&](const std::string& set, const std::vector<LogicalTensor>& wanted) {
    RankPieces pieces(wanted, 0, 1, Split::kRuns, Fill::kZero);
    const absl::Status status = LoadPieces(files, group, checkpoint, set, pieces.pieces());
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    return std::string(status.message());
  };

  EXPECT_THAT(load("model", {a, b, MakeTensor("c", {2}, DType::kF32, 1)}),
              HasSubstr("set \"model\" has no tensor c [2], which this run wants; set [model]"));
  EXPECT_THAT(load("model", {a}),
              HasSubstr("has a tensor b [3] that this run does not want; set [model]"));
  EXPECT_THAT(load("model", {a, MakeTensor("b", {5}, DType::kF32, 1)}),
              HasSubstr("tensor b of set \"model\" is [3] fp32, this run wants [5] fp32; set "
                        "[model]"));
  EXPECT_THAT(load("model", {a, MakeTensor("b", {3}, DType::kBF16, 1)}),
              HasSubstr("is [3] fp32, this run wants [3] bf16; set the storage of weights"));
  EXPECT_THAT(load("momentum", {a}), HasSubstr("has no set \"momentum\"; set [optim]"));
}

TEST(CheckpointTest, ATensorThatOnlyAnotherRankWantsIsNotLeftOver) {
  TempDir dir;
  PosixFileSystem files;
  const LogicalTensor a = MakeTensor("a", {4}, DType::kF32, 1);
  const LogicalTensor b = MakeTensor("b", {3}, DType::kF32, 2);
  RankPieces saved({a, b}, 0, 1, Split::kRuns, Fill::kValues);
  const Checkpoint checkpoint = SaveAndOpen(dir.path(), {{"model", saved.pieces(), {}}});

  RunRanks(2, [&](RankWorld& world) {
    const std::vector<LogicalTensor> wanted = {world.rank() == 0 ? a : b};
    RankPieces pieces(wanted, 0, 1, Split::kRuns, Fill::kZero);
    EXPECT_TRUE(LoadPieces(files, world.host(), checkpoint, "model", pieces.pieces()).ok());
    pieces.ExpectValues(wanted);
  });
}

TEST(CheckpointTest, AllRanksGetTheErrorOfTheOneWhoseLoadFails) {
  TempDir dir;
  PosixFileSystem files;
  const LogicalTensor a = MakeTensor("a", {4}, DType::kF32, 1);
  RankPieces saved({a}, 0, 1, Split::kRuns, Fill::kValues);
  const Checkpoint checkpoint = SaveAndOpen(dir.path(), {{"model", saved.pieces(), {}}});

  RunRanks(3, [&](RankWorld& world) {
    RankPieces pieces({world.rank() == 1 ? MakeTensor("a", {5}, DType::kF32, 1) : a}, 0, 1,
                      Split::kRuns, Fill::kZero);
    const absl::Status status =
        LoadPieces(files, world.host(), checkpoint, "model", pieces.pieces());
    EXPECT_THAT(std::string(status.message()), HasSubstr("[4] fp32, this run wants [5]"));
  });
}

TEST(CheckpointTest, PiecesThatLeaveAGapOrOverlapAreRefusedOnAllRanks) {
  TempDir dir;
  PosixFileSystem files;
  for (const int64_t begin : {int64_t{2}, int64_t{4}}) {
    RunRanks(2, [&](RankWorld& world) {
      std::vector<float> values(3);
      CheckpointContents contents;
      contents.sets = {{"model", {}, {}}};
      contents.sets[0].pieces.push_back(
          {"a", Shape{6}, ElementRuns::Contiguous(world.rank() == 0 ? 0 : begin - (begin == 4), 3),
           Tensor(values.data(), {3}, DType::kF32, Device{})});
      if (begin == 4 && world.rank() == 0) {
        contents.sets[0].pieces[0].runs.run = 2;
        contents.sets[0].pieces[0].data = Tensor(values.data(), {2}, DType::kF32, Device{});
      }
      const absl::Status status = SaveCheckpoint(files, world.host(), dir.path(), contents, {});
      EXPECT_TRUE(absl::IsInternal(status)) << status;
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr(begin == 2 ? "elements 2 to 3 are in more than one slice"
                                       : "elements 2 to 3 are in no slice"));
    });
  }
}

TEST(CheckpointTest, ManifestTellsWhetherAllValuesAreFinite) {
  PosixFileSystem files;
  // The last is the largest finite number of each type: all exponents but the highest are finite.
  const auto finite_with = [](DType dtype, uint64_t pattern) {
    TempDir dir;
    LogicalTensor tensor = MakeTensor("a", {2000}, dtype, 1);
    const auto size = static_cast<size_t>(SizeOf(dtype));
    for (size_t i = 0; i < size; ++i) {
      tensor.values[1234 * size + i] = static_cast<std::byte>(pattern >> (8 * i));
    }
    RankPieces pieces({tensor}, 0, 1, Split::kRuns, Fill::kValues);
    return SaveAndOpen(dir.path(), {{"model", pieces.pieces(), {}}}).manifest().finite;
  };

  EXPECT_TRUE(finite_with(DType::kF32, 0xFF7FFFFF));
  EXPECT_FALSE(finite_with(DType::kF32, 0xFF800000));
  EXPECT_FALSE(finite_with(DType::kF32, 0x7FC00001));
  EXPECT_TRUE(finite_with(DType::kBF16, 0x7F7F));
  EXPECT_FALSE(finite_with(DType::kBF16, 0xFF80));
  EXPECT_TRUE(finite_with(DType::kF64, 0x7FEFFFFFFFFFFFFF));
  EXPECT_FALSE(finite_with(DType::kF64, 0x7FF8000000000000));
  EXPECT_TRUE(finite_with(DType::kU8, 0xFF));
}

TEST(CheckpointTest, OneRanksWriteErrorReachesAllAndLeavesTheOldCheckpoint) {
  for (const int failing_rank : {0, 2}) {
    TempDir dir;
    PosixFileSystem files;
    RunRanks(3, [&](RankWorld& world) {
      SaveExample(world, files, dir.path(), Split::kRuns, /*step=*/1);
    });

    RunRanks(3, [&](RankWorld& world) {
      RankPieces pieces(ExampleTensors(3), world.rank(), 3, Split::kRuns, Fill::kValues);
      CheckpointContents contents;
      contents.step = 2;
      contents.sets = {{"model", pieces.pieces(), {}}};
      // The third operation: rank 0's while it makes files, rank 2's while it writes pieces.
      SteppingFileSystem faulty(world.rank() == failing_rank ? 2 : SteppingFileSystem::kNever,
                                SteppingFileSystem::Failure::kOnce);
      const absl::Status status = SaveCheckpoint(faulty, world.host(), dir.path(), contents, {});
      EXPECT_TRUE(absl::IsUnavailable(status));
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("saving "), HasSubstr("step_00000002: injected failure")));
    });

    EXPECT_EQ((*files.List(dir.File("checkpoints"))).size(), 1U);
    RunRanks(2,
             [&](RankWorld& world) { ExpectExampleLoads(world, files, dir.path(), Split::kRuns); });
  }
}

}  // namespace
}  // namespace panthera
