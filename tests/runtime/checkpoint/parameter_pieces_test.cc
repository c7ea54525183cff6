#include "runtime/checkpoint/parameter_pieces.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/support/rank_harness.h"
#include "tests/support/slices.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using testing::Cut;
using testing::RankWorld;
using testing::RunRanks;
using testing::SlicePlace;
using testing::TempDir;

// Ranks of a data x tensor mesh; neighbours are slices.
struct MeshShape {
  int data = 1;
  int tensor = 1;
  Cut cut = Cut::kRows;

  int ranks() const { return data * tensor; }
};

// One rank's store of one sharded group of three matrices and one replicated gain.
struct MeshStore {
  MeshStore(RankWorld& world, const MeshShape& mesh, WeightStorage storage)
      : data_parallel(world.Split(world.rank() % mesh.tensor)) {
    const SlicePlace place{mesh.cut, world.rank() % mesh.tensor, mesh.tensor};
    const GroupId block = store.AddGroup("block", GroupKind::kSharded);
    const GroupId gains = store.AddGroup("gains", GroupKind::kReplicated);
    store.Add(block, testing::SliceOf({"up", Shape{230, 70}, ParamKind::kMatrix, 0, 1}, place));
    store.Add(block, testing::SliceOf({"down", Shape{30, 11}, ParamKind::kMatrix, 0, 1}, place));
    store.Add(block, testing::SliceOf({"small", Shape{7, 10}, ParamKind::kMatrix, 0, 1}, place));
    store.Add(gains, {"norm", Shape{70}, ParamKind::kGain, 1, 0});
    store.Allocate(Device{}, world.ledger(), *data_parallel, storage);
  }

  std::unique_ptr<Communicator> data_parallel;
  ParameterStore store;
};

// A value that only one element of all tensors has and that 16 bits of significand hold.
float ValueOf(ParamId param, int64_t element) {
  return static_cast<float>(param.index + 1) + static_cast<float>(element) * 0x1p-14F;
}

float ValueOf(const ParameterStore& store, const ShardSegment& segment, int64_t i) {
  return ValueOf(segment.param,
                 testing::LogicalElement(store.spec(segment.param), segment.param_begin + i));
}

void FillShards(const ParameterStore& store) {
  for (int i = 0; i < store.num_groups(); ++i) {
    const WeightShard shard = store.shard(GroupId{i});
    for (const ShardSegment& segment : store.segments(GroupId{i})) {
      for (int64_t j = 0; j < segment.elements; ++j) {
        const float value = ValueOf(store, segment, j);
        WriteWeightsToNearest(shard, segment.shard_begin + j, 1, &value);
      }
    }
  }
}

void ExpectFilled(const ParameterStore& store) {
  for (int i = 0; i < store.num_groups(); ++i) {
    const WeightShard shard = store.shard(GroupId{i});
    for (const ShardSegment& segment : store.segments(GroupId{i})) {
      for (int64_t j = 0; j < segment.elements; ++j) {
        float value = 0;
        ReadWeights(shard, segment.shard_begin + j, 1, &value);
        float wanted = ValueOf(store, segment, j);
        if (shard.storage == WeightStorage::kBf16) {
          wanted = static_cast<float>(BF16(wanted));
        }
        ASSERT_EQ(value, wanted) << store.spec(segment.param).name << " " << j;
      }
    }
  }
}

class ParameterPiecesTest : public ::testing::TestWithParam<WeightStorage> {
 protected:
  void Save(const MeshShape& mesh) {
    RunRanks(mesh.ranks(), [&](RankWorld& world) {
      const MeshStore saved(world, mesh, GetParam());
      FillShards(saved.store);
      CheckpointContents contents;
      contents.sets = WeightSets(saved.store, world.rank(), PieceUse::kSave);
      const absl::Status status = SaveCheckpoint(files_, world.host(), dir_.path(), contents, {});
      ASSERT_TRUE(status.ok()) << status;
    });
  }

  void LoadAndCompare(const MeshShape& mesh) {
    RunRanks(mesh.ranks(), [&](RankWorld& world) {
      const MeshStore loaded(world, mesh, GetParam());
      const FoundCheckpoint found = *FindNewest(files_, world.host(), dir_.path());
      for (TensorSet& set : WeightSets(loaded.store, world.rank(), PieceUse::kLoad)) {
        const absl::Status status =
            LoadPieces(files_, world.host(), *found.checkpoint, set.name, set.pieces);
        ASSERT_TRUE(status.ok()) << status;
      }
      ExpectFilled(loaded.store);
    });
  }

  TempDir dir_;
  PosixFileSystem files_;
};

TEST_P(ParameterPiecesTest, AStoreComesBackOnAnotherNumberOfRanks) {
  Save({.data = 2});
  LoadAndCompare({.data = 3});
}

// Shards of column slices begin and end inside rows.
TEST_P(ParameterPiecesTest, SlicesComeBackOnEveryOtherCut) {
  for (const Cut saved : {Cut::kRows, Cut::kColumns}) {
    Save({.data = 2, .tensor = 2, .cut = saved});
    for (const Cut cut : {Cut::kRows, Cut::kColumns}) {
      for (const int tensor : {1, 3, 4}) {
        for (const int data : {1, 2}) {
          SCOPED_TRACE(std::to_string(data) + " x " + std::to_string(tensor) +
                       (cut == Cut::kRows ? " by rows" : " by columns"));
          LoadAndCompare({.data = data, .tensor = tensor, .cut = cut});
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Storages, ParameterPiecesTest,
                         ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                           WeightStorage::kBf16, WeightStorage::kBf16PlusFp32));

}  // namespace
}  // namespace panthera
