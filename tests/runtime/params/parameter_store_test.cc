#include "runtime/params/parameter_store.h"

#include <bit>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"
#include "tests/support/devices.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;

constexpr Device kMeta{DeviceKind::kMeta, 0};

struct TestGroups {
  GroupId table;
  GroupId block;
  GroupId vectors;
};

// Odd sizes of every kind: a table whose rows are no multiple of anything, matrices smaller than,
// equal to and larger than a block, gains and biases.
TestGroups AddParameters(ParameterStore& store) {
  TestGroups groups;
  groups.table = store.AddGroup("embedding", GroupKind::kSharded);
  store.Add(groups.table, {"embed", {11, 37}, ParamKind::kEmbedding});
  groups.block = store.AddGroup("block 0", GroupKind::kSharded);
  store.Add(groups.block, {"q", {32, 32}, ParamKind::kMatrix});
  store.Add(groups.block, {"k", {64, 32}, ParamKind::kMatrix});
  store.Add(groups.block, {"small", {3, 32}, ParamKind::kMatrix});
  store.Add(groups.block, {"last", {97, 32}, ParamKind::kMatrix});
  groups.vectors = store.AddGroup("vectors", GroupKind::kReplicated);
  store.Add(groups.vectors, {"norm", {37}, ParamKind::kGain});
  store.Add(groups.vectors, {"bias", {1025}, ParamKind::kBias});
  return groups;
}

ParamId Id(const ParameterStore& store, const char* name) { return store.Find(name).value(); }

// One meta store for each rank of `ranks`.
std::vector<std::unique_ptr<ParameterStore>> PlanStores(int ranks, MemoryLedger& ledger) {
  std::vector<std::unique_ptr<ParameterStore>> stores;
  for (int rank = 0; rank < ranks; ++rank) {
    PlanCommunicator comm(rank, ranks);
    stores.push_back(std::make_unique<ParameterStore>());
    AddParameters(*stores.back());
    stores.back()->Allocate(kMeta, ledger, comm, WeightStorage::kBf16Plus8);
  }
  return stores;
}

TEST(ParameterStoreTest, ShardsAreEqualAndEndOnBlockBoundaries) {
  for (int ranks = 1; ranks <= 7; ++ranks) {
    MemoryLedger ledger;
    for (const auto& store : PlanStores(ranks, ledger)) {
      for (int i = 0; i < store->num_groups(); ++i) {
        const GroupLayout& layout = store->layout(GroupId{i});
        const bool sharded = layout.kind == GroupKind::kSharded;
        EXPECT_EQ(layout.elements, layout.shard_elements * (sharded ? ranks : 1)) << layout.name;
        EXPECT_EQ(layout.shard_elements % layout.block_elements, 0) << layout.name;
        int64_t end = 0;
        for (const ParamId id : layout.params) {
          EXPECT_EQ(store->offset(id) % layout.block_elements, 0) << store->spec(id).name;
          EXPECT_GE(store->offset(id), end) << store->spec(id).name;
          end = store->offset(id) + store->spec(id).shape.elements();
        }
        EXPECT_LE(end, layout.elements) << layout.name;
        // Not a whole block per rank more than needed.
        EXPECT_LT(layout.elements - RoundUp(end, layout.block_elements),
                  layout.block_elements * ranks)
            << layout.name;
      }
    }
  }
}

TEST(ParameterStoreTest, BlocksAreRowsOfTablesAnd1024ElementsElsewhere) {
  MemoryLedger ledger;
  const auto stores = PlanStores(3, ledger);
  EXPECT_EQ(stores[0]->layout(GroupId{0}).block_elements, 37);
  EXPECT_EQ(stores[0]->layout(GroupId{1}).block_elements, 1024);
  EXPECT_EQ(stores[0]->layout(GroupId{2}).block_elements, 1024);
}

TEST(ParameterStoreTest, EveryElementLiesInExactlyOneShard) {
  for (int ranks = 1; ranks <= 7; ++ranks) {
    MemoryLedger ledger;
    const auto stores = PlanStores(ranks, ledger);
    std::vector<std::vector<int>> owners(static_cast<size_t>(stores[0]->num_params()));
    for (size_t p = 0; p < owners.size(); ++p) {
      owners[p].resize(
          static_cast<size_t>(stores[0]->spec(ParamId{static_cast<int>(p)}).shape.elements()));
    }
    for (int rank = 0; rank < ranks; ++rank) {
      const ParameterStore& store = *stores[static_cast<size_t>(rank)];
      for (const GroupId group : {GroupId{0}, GroupId{1}}) {
        const GroupLayout& layout = store.layout(group);
        int64_t end = 0;
        for (const ShardSegment& segment : store.segments(group)) {
          EXPECT_GE(segment.shard_begin, end);
          end = segment.shard_begin + segment.elements;
          EXPECT_EQ(rank * layout.shard_elements + segment.shard_begin,
                    store.offset(segment.param) + segment.param_begin);
          EXPECT_EQ(segment.param_begin % layout.block_elements, 0);
          for (int64_t i = 0; i < segment.elements; ++i) {
            ++owners[static_cast<size_t>(segment.param.index)]
                    [static_cast<size_t>(segment.param_begin + i)];
          }
        }
        EXPECT_LE(end, layout.shard_elements);
      }
    }
    for (const GroupId group : {GroupId{0}, GroupId{1}}) {
      for (const ParamId id : stores[0]->layout(group).params) {
        const auto& counts = owners[static_cast<size_t>(id.index)];
        EXPECT_EQ(counts, std::vector<int>(counts.size(), 1)) << stores[0]->spec(id).name;
      }
    }
  }
}

TEST(ParameterStoreTest, EveryRankOwnsAllOfAReplicatedGroup) {
  MemoryLedger ledger;
  for (const auto& store : PlanStores(4, ledger)) {
    const std::vector<ShardSegment>& segments = store->segments(GroupId{2});
    ASSERT_EQ(segments.size(), 2U);
    for (const ShardSegment& segment : segments) {
      EXPECT_EQ(segment.param_begin, 0);
      EXPECT_EQ(segment.shard_begin, store->offset(segment.param));
      EXPECT_EQ(segment.elements, store->spec(segment.param).shape.elements());
    }
    EXPECT_EQ(store->shard(GroupId{2}).storage, WeightStorage::kFp32);
    EXPECT_EQ(store->layout(GroupId{2}).value_dtype, DType::kF32);
  }
}

TEST(ParameterStoreTest, ValuesAreViewsOfTheFlatGroup) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  ParameterStore store;
  const TestGroups groups = AddParameters(store);
  store.Allocate(Device{}, ledger, comm, WeightStorage::kFp32);
  float* flat = store.group_values(groups.block).data<float>();
  for (int64_t i = 0; i < store.layout(groups.block).elements; ++i) {
    EXPECT_EQ(flat[i], 0);
    flat[i] = static_cast<float>(i);
  }
  for (const ParamId id : store.layout(groups.block).params) {
    const Tensor value = store.value(id);
    EXPECT_EQ(value.shape(), store.spec(id).shape);
    for (int64_t i = 0; i < value.elements(); ++i) {
      ASSERT_EQ(value.data<float>()[i], static_cast<float>(store.offset(id) + i));
    }
  }
  EXPECT_EQ(store.total_elements(), 11 * 37 + 32 * 32 + 64 * 32 + 3 * 32 + 97 * 32 + 37 + 1025);
  EXPECT_FALSE(store.Find("absent").has_value());
}

TEST(ParameterStoreTest, RowsFuseOnlyWithoutPaddingBetween) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  ParameterStore store;
  AddParameters(store);
  store.Allocate(Device{}, ledger, comm, WeightStorage::kBf16);
  const ParamId q = Id(store, "q");
  const ParamId k = Id(store, "k");
  const ParamId small = Id(store, "small");
  const ParamId last = Id(store, "last");
  const auto fused = store.FusedRows(std::vector<ParamId>{q, k, small});
  ASSERT_TRUE(fused.has_value());
  EXPECT_EQ(fused->shape(), (Shape{32 + 64 + 3, 32}));
  EXPECT_EQ(fused->bytes_data(), store.value(q).bytes_data());
  EXPECT_EQ(fused->dtype(), DType::kBF16);
  EXPECT_FALSE(store.FusedRows(std::vector<ParamId>{small, last}).has_value()) << "padding";
  EXPECT_FALSE(store.FusedRows(std::vector<ParamId>{k, q}).has_value()) << "wrong order";
  EXPECT_FALSE(store.FusedRows(std::vector<ParamId>{q, small}).has_value()) << "left out k";
  EXPECT_FALSE(store.FusedRows(std::vector<ParamId>{q, Id(store, "norm")}).has_value());
  EXPECT_EQ(store.FusedRows(std::vector<ParamId>{last})->shape(), (Shape{97, 32}));
}

float Expected(ParamId id, int64_t element) {
  return static_cast<float>((id.index * 131 + element * 7) % 251) / 8;
}

class PublishTest : public ::testing::TestWithParam<WeightStorage> {};

TEST_P(PublishTest, BringsAllShardsToAllRanks) {
  for (const int ranks : {1, 2, 3, 5}) {
    RunRanks(ranks, [&](RankWorld& world) {
      ParameterStore store;
      const TestGroups groups = AddParameters(store);
      store.Allocate(Device{}, world.ledger(), world.communicator(), GetParam());
      for (const GroupId group : {groups.table, groups.block}) {
        for (const ShardSegment& segment : store.segments(group)) {
          for (int64_t i = 0; i < segment.elements; ++i) {
            const float value = Expected(segment.param, segment.param_begin + i);
            WriteWeightsToNearest(store.shard(group), segment.shard_begin + i, 1, &value);
          }
        }
      }
      store.Publish(world.communicator(), world.stream(), world.stream());
      for (const GroupId group : {groups.table, groups.block}) {
        for (const ParamId id : store.layout(group).params) {
          const Tensor value = store.value(id);
          for (int64_t i = 0; i < value.elements(); ++i) {
            // Eighths below 32 fit into a bf16.
            const float read = value.dtype() == DType::kBF16
                                   ? static_cast<float>(value.data<BF16>()[i])
                                   : value.data<float>()[i];
            ASSERT_EQ(read, Expected(id, i)) << store.spec(id).name << " rank " << world.rank();
          }
        }
      }
    });
  }
}

// Each rank rounds other values to 16 bits of significand, in its own shard.
TEST(PublishLowBitsTest, BringsThoseThatAreReplicatedToAllRanks) {
  for (const int ranks : {1, 2, 3, 5}) {
    RunRanks(ranks, [&](RankWorld& world) {
      ParameterStore store;
      const TestGroups groups = AddParameters(store);
      store.Allocate(Device{}, world.ledger(), world.communicator(), WeightStorage::kBf16Plus8,
                     LowBits::kReplicated);
      // Sixteen bits of significand, of which a bf16 has eight.
      const auto value_of = [](ParamId id, int64_t i) {
        return 1 + static_cast<float>((id.index * 131 + i * 7) % 32768) / 32768;
      };
      for (const GroupId group : {groups.table, groups.block}) {
        for (const ShardSegment& segment : store.segments(group)) {
          for (int64_t i = 0; i < segment.elements; ++i) {
            const float value = value_of(segment.param, segment.param_begin + i);
            WriteWeightsToNearest(store.shard(group), segment.shard_begin + i, 1, &value);
          }
        }
      }
      store.Publish(world.communicator(), world.stream(), world.stream());
      for (const GroupId group : {groups.table, groups.block}) {
        for (const ShardSegment& segment : store.group_segments(group)) {
          EXPECT_EQ(segment.elements, store.spec(segment.param).shape.elements());
          std::vector<float> read(static_cast<size_t>(segment.elements));
          ReadWeights(store.group_weights(group), segment.shard_begin, segment.elements,
                      read.data());
          for (int64_t i = 0; i < segment.elements; ++i) {
            ASSERT_EQ(read[static_cast<size_t>(i)], value_of(segment.param, i))
                << store.spec(segment.param).name << " rank " << world.rank();
          }
        }
      }
    });
  }
}

// The update and the reader are on streams of their own, which nobody else waits for.
TEST(PublishOnAGpuTest, FollowsTheUpdateAndItsReaderFollowsIt) {
  const std::vector<Device> gpus = testing::Gpus();
  if (gpus.empty()) {
    GTEST_SKIP() << "no GPU, real or emulated";
  }
  RunRanks(2, [&](RankWorld& world) {
    ParameterStore store;
    const GroupId block = AddParameters(store).block;
    store.Allocate(gpus[0], world.ledger(), world.communicator(), WeightStorage::kFp32);
    Stream compute(gpus[0]);
    Stream exchange(gpus[0]);
    Stream reader(gpus[0]);
    const Tensor shard = store.shard(block).values;
    std::vector<float> written(static_cast<size_t>(shard.elements()),
                               static_cast<float>(world.rank() + 1));
    std::vector<float> read(2 * written.size());
    Copy(compute, Tensor(written.data(), shard.shape(), DType::kF32, Device{}), shard);
    store.Publish(world.communicator(), compute, exchange);
    store.AwaitPublished(block, reader);
    const Tensor all = store.group_values(block);
    Copy(reader, all, Tensor(read.data(), all.shape(), DType::kF32, Device{}));
    reader.Synchronize();
    for (size_t i = 0; i < read.size(); ++i) {
      ASSERT_EQ(read[i], i < written.size() ? 1.0F : 2.0F) << "element " << i;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Storages, PublishTest,
                         ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                           WeightStorage::kBf16, WeightStorage::kBf16PlusFp32));

TEST(ParameterStoreTest, LedgerHoldsTheDocumentedBytes) {
  struct Case {
    WeightStorage storage;
    int64_t value_bytes;
    int64_t state_bytes;
    LowBits low_bits = LowBits::kSharded;
    int64_t state_ranks = 4;  // among which state is divided
  };
  for (const Case& c : {Case{WeightStorage::kFp32, 4, 0}, Case{WeightStorage::kBf16Plus8, 2, 1},
                        Case{WeightStorage::kBf16, 2, 0}, Case{WeightStorage::kBf16PlusFp32, 2, 4},
                        Case{WeightStorage::kBf16Plus8, 2, 1, LowBits::kReplicated, 1}}) {
    MemoryLedger ledger;
    PlanCommunicator comm(1, 4);
    ParameterStore store;
    const TestGroups groups = AddParameters(store);
    store.Allocate(kMeta, ledger, comm, c.storage, c.low_bits);
    const int64_t sharded =
        store.layout(groups.table).elements + store.layout(groups.block).elements;
    EXPECT_EQ(ledger.bytes(MemoryCategory::kWeights),
              c.value_bytes * sharded + 4 * store.layout(groups.vectors).elements);
    EXPECT_EQ(ledger.bytes(MemoryCategory::kOptimizerState),
              c.state_bytes * sharded / c.state_ranks);
  }
}

TEST(ParameterStoreTest, MetaEntersTheBytesOfARealStore) {
  for (const WeightStorage storage : {WeightStorage::kFp32, WeightStorage::kBf16Plus8,
                                      WeightStorage::kBf16, WeightStorage::kBf16PlusFp32}) {
    RunRanks(3, [&](RankWorld& world) {
      ParameterStore real;
      AddParameters(real);
      real.Allocate(Device{}, world.ledger(), world.communicator(), storage);
      MemoryLedger planned_ledger;
      PlanCommunicator plan(world.rank(), 3);
      ParameterStore planned;
      AddParameters(planned);
      planned.Allocate(kMeta, planned_ledger, plan, storage);
      const auto& expected = world.ledger().entries();
      const auto& entries = planned_ledger.entries();
      ASSERT_EQ(entries.size(), expected.size());
      for (size_t i = 0; i < entries.size(); ++i) {
        EXPECT_EQ(entries[i].name, expected[i].name);
        EXPECT_EQ(entries[i].category, expected[i].category);
        EXPECT_EQ(entries[i].bytes, expected[i].bytes);
      }
      Stream meta(kMeta);
      real.Publish(world.communicator(), world.stream(), world.stream());
      planned.Publish(plan, meta, meta);
      EXPECT_EQ(plan.bytes_sent(), world.communicator().bytes_sent());
    });
  }
}

TEST(ParameterStoreDeathTest, RefusesWhatCannotBeLaidOut) {
  ParameterStore store;
  const GroupId table = store.AddGroup("embedding", GroupKind::kSharded);
  store.Add(table, {"embed", {11, 37}, ParamKind::kEmbedding});
  EXPECT_DEATH(store.Add(table, {"other", {4, 4}, ParamKind::kMatrix}), "alone in its group");
  const GroupId block = store.AddGroup("block", GroupKind::kSharded);
  EXPECT_DEATH(store.Add(block, {"embed", {4, 4}, ParamKind::kMatrix}), "already there");
  MemoryLedger ledger;
  PlanCommunicator comm(0, 2);
  EXPECT_DEATH(store.Allocate(kMeta, ledger, comm, WeightStorage::kFp32), "no parameters");
}

}  // namespace
}  // namespace panthera
