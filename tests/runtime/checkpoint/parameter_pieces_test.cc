#include "runtime/checkpoint/parameter_pieces.h"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/comm/self_communicator.h"
#include "tests/support/rank_harness.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::TempDir;

// A store of one sharded group of two matrices and one replicated gain.
void Build(ParameterStore& store, RankWorld& world, WeightStorage storage) {
  const GroupId block = store.AddGroup("block", GroupKind::kSharded);
  const GroupId gains = store.AddGroup("gains", GroupKind::kReplicated);
  store.Add(block, {"up", Shape{50, 70}, ParamKind::kMatrix, 0, 1});
  store.Add(block, {"down", Shape{30, 11}, ParamKind::kMatrix, 0, 1});
  store.Add(gains, {"norm", Shape{70}, ParamKind::kGain, 1, 0});
  store.Allocate(Device{}, world.ledger(), world.communicator(), storage);
}

// A value that only one element of all tensors has and that 16 bits of significand hold.
float ValueOf(ParamId param, int64_t element) {
  return static_cast<float>(param.index + 1) + static_cast<float>(element) * 0x1p-14F;
}

void FillShards(const ParameterStore& store) {
  for (int i = 0; i < store.num_groups(); ++i) {
    const WeightShard shard = store.shard(GroupId{i});
    for (const ShardSegment& segment : store.segments(GroupId{i})) {
      for (int64_t j = 0; j < segment.elements; ++j) {
        const float value = ValueOf(segment.param, segment.param_begin + j);
        WriteWeightsToNearest(shard, segment.shard_begin + j, 1, &value);
      }
    }
  }
}

class ParameterPiecesTest : public ::testing::TestWithParam<WeightStorage> {};

TEST_P(ParameterPiecesTest, AStoreComesBackOnAnotherNumberOfRanks) {
  TempDir dir;
  PosixFileSystem files;
  RunRanks(2, [&](RankWorld& world) {
    ParameterStore store;
    Build(store, world, GetParam());
    FillShards(store);
    CheckpointContents contents;
    contents.sets = WeightSets(store, world.rank(), PieceUse::kSave);
    const absl::Status status = SaveCheckpoint(files, world.host(), dir.path(), contents, {});
    ASSERT_TRUE(status.ok()) << status;
  });

  RunRanks(3, [&](RankWorld& world) {
    ParameterStore store;
    Build(store, world, GetParam());
    const FoundCheckpoint found = *FindNewest(files, world.host(), dir.path());
    for (TensorSet& set : WeightSets(store, world.rank(), PieceUse::kLoad)) {
      const absl::Status status =
          LoadPieces(files, world.host(), *found.checkpoint, set.name, set.pieces);
      ASSERT_TRUE(status.ok()) << status;
    }

    for (int i = 0; i < store.num_groups(); ++i) {
      const WeightShard shard = store.shard(GroupId{i});
      for (const ShardSegment& segment : store.segments(GroupId{i})) {
        for (int64_t j = 0; j < segment.elements; ++j) {
          float value = 0;
          ReadWeights(shard, segment.shard_begin + j, 1, &value);
          float wanted = ValueOf(segment.param, segment.param_begin + j);
          if (shard.storage == WeightStorage::kBf16) {
            wanted = static_cast<float>(BF16(wanted));
          }
          ASSERT_EQ(value, wanted) << store.spec(segment.param).name << " " << j;
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Storages, ParameterPiecesTest,
                         ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                           WeightStorage::kBf16, WeightStorage::kBf16PlusFp32));

}  // namespace
}  // namespace panthera
