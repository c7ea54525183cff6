#include "optim/seen_rows.h"

#include <deque>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"
#include "runtime/math/host_mirror.h"
#include "tests/support/devices.h"
#include "tests/support/rank_harness.h"
#include "tests/support/slices.h"

namespace panthera {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::RankWorld;
using testing::RunRanks;

constexpr Device kMeta{DeviceKind::kMeta, 0};
// Two full words of bits and a part of one.
constexpr int64_t kVocabulary = 70;

ParamSpec TableOf(int64_t rows) { return {"embed", {rows, 2}, ParamKind::kEmbedding}; }

// One rank's rows, on any device.
struct Rank {
  Rank(Device device, MemoryLedger& ledger, MeshAxes axes, LazyRows lazy_rows = LazyRows::kChange)
      : Rank(device, ledger, axes, lazy_rows, TableOf(kVocabulary)) {}
  Rank(Device device, MemoryLedger& ledger, MeshAxes axes, LazyRows lazy_rows,
       const ParamSpec& table)
      : ctx(device, ledger, 0), seen(lazy_rows, table, ctx, axes) {}

  void Mark(std::vector<int32_t> tokens) {
    const auto count = static_cast<int64_t>(tokens.size());
    memory.emplace_back(ctx.device(), ctx.ledger(), MemoryCategory::kData, "tokens",
                        count * SizeOf(DType::kI32));
    const Tensor on_device = memory.back().View({count}, DType::kI32);
    if (!ctx.device().is_meta()) {
      Copy(ctx.compute(), Tensor(tokens.data(), {count}, DType::kI32, Device{}), on_device);
      ctx.compute().Synchronize();
    }
    seen.Mark(on_device);
  }
  // The rows that are seen, ascending.
  std::vector<int64_t> Seen() {
    seen.Gather();
    std::vector<int64_t> rows;
    const std::vector<uint8_t> flags = ReadToHost<uint8_t>(ctx, seen.rows());
    for (size_t row = 0; row < flags.size(); ++row) {
      EXPECT_LE(flags[row], 1);
      if (flags[row] != 0) {
        rows.push_back(static_cast<int64_t>(row));
      }
    }
    return rows;
  }

  Context ctx;
  SeenRows seen;
  std::deque<Buffer> memory;
};

class SeenRowsTest : public ::testing::TestWithParam<Device> {};

INSTANTIATE_TEST_SUITE_P(Devices, SeenRowsTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

TEST_P(SeenRowsTest, AreTheTokensOfAllMicroStepsAndRanks) {
  RunRanks(3, [](RankWorld& world) {
    Rank rank(GetParam(), world.ledger(), world.communicator());
    rank.seen.Clear();
    const int32_t own = 10 * (world.rank() + 1);
    rank.Mark({own, 31, own});
    rank.Mark({own + 32});
    if (world.rank() == 2) {
      rank.Mark({0, 69});
    }
    EXPECT_THAT(rank.Seen(), ElementsAre(0, 10, 20, 30, 31, 42, 52, 62, 69));
  });
}

TEST_P(SeenRowsTest, AreForgottenInTheNextStep) {
  RunRanks(2, [](RankWorld& world) {
    Rank rank(GetParam(), world.ledger(), world.communicator());
    rank.seen.Clear();
    rank.Mark({world.rank()});
    EXPECT_THAT(rank.Seen(), ElementsAre(0, 1));
    rank.seen.Clear();
    rank.Mark({64});
    EXPECT_THAT(rank.Seen(), ElementsAre(64));
    rank.seen.Clear();
    EXPECT_THAT(rank.Seen(), IsEmpty());
  });
}

// Tensor-parallel peers see the same tokens, of the whole vocabulary.
TEST_P(SeenRowsTest, OfASliceAreThoseOfItsRowsThatAnyDataParallelRankHasRead) {
  RunRanks(6, [](RankWorld& world) {
    testing::MeshWorld mesh(world, 3);
    const int part = mesh.tensor().rank();
    const ParamSpec table = testing::SliceOf(TableOf(kVocabulary), {testing::Cut::kRows, part, 3});
    Rank rank(GetParam(), world.ledger(), mesh.axes(), LazyRows::kChange, table);
    rank.seen.Clear();
    rank.Mark({22, 23, 69 * mesh.data().rank()});
    rank.Mark({30 + 20 * mesh.data().rank()});
    const std::vector<int64_t> all = {0, 22, 23, 30, 50, 69};
    std::vector<int64_t> expected;
    const int64_t first = table.slice->first_row;
    for (const int64_t row : all) {
      if (row >= first && row < first + table.shape[0]) {
        expected.push_back(row - first);
      }
    }
    EXPECT_EQ(rank.seen.rows().elements(), part == 0 ? 23 : part == 1 ? 23 : 24);
    EXPECT_EQ(rank.Seen(), expected);
    EXPECT_EQ(mesh.tensor().bytes_sent(), 0);
  });
}

// More tokens than a thread block and more rows than a task, so that all of them have a share.
TEST_P(SeenRowsTest, ManyTokensMarkTheirRowsAndNoOthers) {
  constexpr int64_t kRows = 100'003;
  MemoryLedger ledger;
  SelfCommunicator comm;
  Context ctx(GetParam(), ledger, 0);
  SeenRows seen(LazyRows::kChange, TableOf(kRows), ctx, comm);
  std::vector<int32_t> tokens;
  std::vector<uint8_t> expected(kRows);
  for (int64_t i = 0; i < 3000; ++i) {
    tokens.push_back(static_cast<int32_t>(i * i % kRows));
    expected[static_cast<size_t>(tokens.back())] = 1;
  }
  const Buffer memory(ctx.device(), ledger, MemoryCategory::kData, "tokens", 3000 * 4);
  const Tensor on_device = memory.View({30, 100}, DType::kI32);
  Copy(ctx.compute(), Tensor(tokens.data(), {30, 100}, DType::kI32, Device{}), on_device);
  seen.Clear();
  seen.Mark(on_device);
  seen.Gather();
  EXPECT_TRUE(ReadToHost<uint8_t>(ctx, seen.rows()) == expected);
}

TEST(SeenRowsMemoryTest, OffHasNoRowsNoMemoryAndNoTraffic) {
  RunRanks(2, [](RankWorld& world) {
    Rank rank(Device{}, world.ledger(), world.communicator(), LazyRows::kOff);
    rank.seen.Clear();
    rank.Mark({5});
    rank.seen.Gather();
    EXPECT_EQ(rank.seen.rows().elements(), 0);
    EXPECT_EQ(world.communicator().bytes_sent(), 0);
    EXPECT_EQ(world.ledger().bytes(MemoryCategory::kCommunication), 0);
  });
}

TEST(SeenRowsMemoryTest, MetaEntersTheBytesAndSendsTheTrafficOfARealStep) {
  RunRanks(3, [](RankWorld& world) {
    Rank real(Device{}, world.ledger(), world.communicator());
    real.seen.Clear();
    real.Mark({5});
    real.seen.Gather();
    MemoryLedger planned_ledger;
    PlanCommunicator plan(world.rank(), 3);
    Rank planned(kMeta, planned_ledger, plan);
    planned.seen.Clear();
    planned.Mark({5});
    planned.seen.Gather();
    EXPECT_EQ(plan.bytes_sent(), world.communicator().bytes_sent());
    EXPECT_EQ(plan.bytes_sent(), 2 * 3 * 4) << "three words, to each of two ranks";
    EXPECT_EQ(planned_ledger.bytes(MemoryCategory::kCommunication), 70 + 3 * 3 * 4);
    EXPECT_EQ(world.ledger().bytes(MemoryCategory::kCommunication), 70 + 3 * 3 * 4);
  });
}

TEST(SeenRowsDeathTest, AnIdOutsideTheVocabularyIsACheck) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  Rank rank(Device{}, ledger, comm);
  EXPECT_DEATH(rank.Mark({70}), "70");
  EXPECT_DEATH(rank.Mark({-1}), "-1");
}

}  // namespace
}  // namespace panthera
