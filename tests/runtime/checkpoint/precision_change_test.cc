#include "runtime/checkpoint/precision_change.h"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/checkpoint/parameter_pieces.h"
#include "runtime/comm/plan_communicator.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

// More elements than are converted at a time.
const Shape kShape = {1200, 1000};

// The only rank's store of one large matrix, and a state like it.
struct Store {
  explicit Store(WeightStorage storage) : communicator(0, 1) {
    group = params.AddGroup("block", GroupKind::kSharded);
    params.Add(group, {"matrix", kShape, ParamKind::kMatrix, 0, 1});
    params.Allocate(Device{}, ledger, communicator, storage);
  }

  // With padding.
  int64_t elements() const { return params.layout(group).shard_elements; }
  // A view of a state's memory.
  template <typename T>
  Tensor StateOf(std::vector<T>& memory) const {
    memory.resize(static_cast<size_t>(elements()));
    return {memory.data(), Shape{elements()}, DTypeOf<T>::value, Device{}};
  }

  MemoryLedger ledger;
  PlanCommunicator communicator;
  ParameterStore params;
  GroupId group;
};

// 16 bits of significand, of which every storage but bf16 keeps all.
float ValueOf(int64_t element) { return static_cast<float>(element % 50021 + 1) / 1024; }

class PrecisionChangeBlocksTest : public ::testing::Test {
 protected:
  // Saves a matrix in bf16+8, and the same values as an fp32 state.
  void SetUp() override {
    Store saved(WeightStorage::kBf16Plus8);
    std::vector<float> values(static_cast<size_t>(kShape.elements()));
    for (int64_t i = 0; i < kShape.elements(); ++i) {
      values[static_cast<size_t>(i)] = ValueOf(i);
    }
    WriteWeightsToNearest(saved.params.shard(saved.group), 0, kShape.elements(), values.data());
    CheckpointContents contents;
    contents.sets = WeightSets(saved.params, 0, PieceUse::kSave);
    const Tensor state = saved.StateOf(values);
    contents.sets.push_back({"momentum", {}, {}});
    AppendShardPieces(saved.params, saved.group, state, 0, PieceUse::kSave,
                      contents.sets.back().pieces);
    ASSERT_EQ(SaveCheckpoint(files_, host_, run_.path(), contents, {}), absl::OkStatus());
  }

  Checkpoint Open() { return *Checkpoint::Open(files_, CheckpointDirectory(run_.path(), 0)); }

  testing::TempDir run_;
  PosixFileSystem files_;
  PlanHostGroup host_{0, 1};
};

TEST_F(PrecisionChangeBlocksTest, WeightsOfSeveralBlocksComeWhole) {
  EXPECT_EQ(StoredWeights(Open()), WeightStorage::kBf16Plus8);
  const Store loaded(WeightStorage::kFp32);
  ASSERT_EQ(LoadWeights(files_, host_, Open(), loaded.params), absl::OkStatus());
  const float* values = loaded.params.shard(loaded.group).values.data<float>();
  for (int64_t i = 0; i < kShape.elements(); ++i) {
    ASSERT_EQ(values[i], ValueOf(i)) << i;
  }
}

TEST_F(PrecisionChangeBlocksTest, StateOfSeveralBlocksComesWhole) {
  const Store loaded(WeightStorage::kFp32);
  std::vector<BF16> state;
  const Tensor shard = loaded.StateOf(state);
  ASSERT_EQ(LoadStates(files_, host_, Open(), loaded.params, {{"momentum", loaded.group, shard}}),
            absl::OkStatus());
  for (int64_t i = 0; i < kShape.elements(); ++i) {
    ASSERT_EQ(state[static_cast<size_t>(i)], BF16(ValueOf(i))) << i;
  }
}

TEST_F(PrecisionChangeBlocksTest, AStateThatTheCheckpointLacksIsNamed) {
  const Store loaded(WeightStorage::kFp32);
  std::vector<float> state;
  const Tensor shard = loaded.StateOf(state);
  const absl::Status status =
      LoadStates(files_, host_, Open(), loaded.params, {{"moment1", loaded.group, shard}});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(status.message()).find("has no set \"moment1\""), std::string::npos)
      << status;
}

}  // namespace
}  // namespace panthera
