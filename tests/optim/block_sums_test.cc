#include "optim/block_sums.h"

#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

#include <gtest/gtest.h>

#include "optim/shard_blocks.h"
#include "runtime/comm/self_communicator.h"
#include "runtime/math/host_mirror.h"
#include "tests/optim/small_model.h"
#include "tests/support/devices.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::AddSmallModel;
using testing::RankWorld;
using testing::RunRanks;

TEST(ForEachBlockTest, VisitsEveryElementOnceInBlocks) {
  for (int ranks = 1; ranks <= 7; ++ranks) {
    std::mutex mutex;
    std::map<std::pair<int, int64_t>, int> visits;  // (param, element)
    RunRanks(ranks, [&](RankWorld& world) {
      ParameterStore store;
      AddSmallModel(store);
      store.Allocate(Device{}, world.ledger(), world.communicator(), WeightStorage::kFp32);
      for (int g = 0; g < store.num_groups() - 1; ++g) {
        const GroupLayout& layout = store.layout(GroupId{g});
        ForEachBlock(store, GroupId{g}, [&](const ShardBlock& block) {
          const std::lock_guard<std::mutex> lock(mutex);
          EXPECT_EQ(block.shard_begin, block.index * layout.block_elements);
          EXPECT_EQ(block.param_begin % layout.block_elements, 0);
          EXPECT_LE(block.elements, layout.block_elements);
          EXPECT_EQ(world.rank() * layout.shard_elements + block.shard_begin,
                    store.offset(block.param) + block.param_begin);
          for (int64_t i = 0; i < block.elements; ++i) {
            ++visits[{block.param.index, block.param_begin + i}];
          }
        });
      }
    });
    EXPECT_EQ(visits.size(), 13U * 37 + (32 + 5 + 81) * 32 + 90 * 33);
    for (const auto& [element, count] : visits) {
      ASSERT_EQ(count, 1) << "param " << element.first << " element " << element.second;
    }
  }
}

// Each block's sum is 1 / (3 + its number in the parameter): adding them in another order than by
// index changes the last bits.
double BlockValue(int64_t number) { return 1.0 / static_cast<double>(3 + number); }

TEST(BlockSumsTest, AddInIndexOrderForEveryNumberOfRanks) {
  for (const int ranks : {1, 2, 3, 4, 7}) {
    RunRanks(ranks, [](RankWorld& world) {
      Context ctx(Device{}, world.ledger(), 0);
      ParameterStore store;
      AddSmallModel(store);
      store.Allocate(Device{}, world.ledger(), world.communicator(), WeightStorage::kFp32);
      BlockSums sums(ctx, store, world.communicator(), "sums", [](GroupId) { return true; });
      for (int g = 0; g < store.num_groups(); ++g) {
        double* local = sums.local(GroupId{g}).data<double>();
        ForEachBlock(store, GroupId{g}, [&](const ShardBlock& block) {
          local[block.index] =
              BlockValue(block.param_begin / store.layout(GroupId{g}).block_elements);
        });
      }
      sums.SumParams(world.stream());
      for (int i = 0; i < store.num_params(); ++i) {
        const ParamId id{i};
        const int64_t block = store.layout(store.group_of(id)).block_elements;
        double expected = 0;
        for (int64_t b = 0; b < CeilDiv(store.spec(id).shape.elements(), block); ++b) {
          expected += BlockValue(b);
        }
        EXPECT_EQ(sums.param_sums().data<double>()[i], expected) << store.spec(id).name;
      }
    });
  }
}

// More blocks than a GPU adds at a time, whose sums need no rounding, or do in part of them, or
// depend on the order because of one that dwarfs the others.
double Fraction(int64_t number) { return static_cast<double>(number * 7919 % 1000) * 0x1p-20; }
double Rounded(int64_t number) { return BlockValue(number); }
double RoundedInTheMiddle(int64_t number) {
  return number > 3000 && number < 5000 ? BlockValue(number) : Fraction(number);
}
double OneDwarfsTheOthers(int64_t number) { return number == 5000 ? 0x1p43 : Fraction(number); }
double OneIsInfinite(int64_t number) {
  return number == 5000 ? std::numeric_limits<double>::infinity() : Fraction(number);
}
double SomeAreNegative(int64_t number) {
  return number % 3 == 0 ? -BlockValue(number) : BlockValue(number);
}

using BlockSumsOnDeviceTest = ::testing::TestWithParam<Device>;
INSTANTIATE_TEST_SUITE_P(Devices, BlockSumsOnDeviceTest,
                         ::testing::ValuesIn(testing::ComputeDevices()), testing::DeviceName);

TEST_P(BlockSumsOnDeviceTest, HaveTheBitsOfAddingInIndexOrder) {
  constexpr int64_t kBlocks = 9001;
  constexpr int64_t kWidth = 8;
  MemoryLedger ledger;
  SelfCommunicator self;
  Context ctx(GetParam(), ledger, 0);
  ParameterStore store;
  const GroupId table = store.AddGroup("table", GroupKind::kSharded);
  store.Add(table, {.name = "table",
                    .shape = {kBlocks, kWidth},
                    .kind = ParamKind::kEmbedding,
                    .init_mean = 0,
                    .init_deviation = 0.02});
  store.Allocate(ctx.device(), ledger, self, WeightStorage::kFp32);
  BlockSums sums(ctx, store, self, "sums", [](GroupId) { return true; });
  for (double (*const value)(int64_t) : {&Fraction, &Rounded, &RoundedInTheMiddle,
                                         &OneDwarfsTheOthers, &OneIsInfinite, &SomeAreNegative}) {
    std::vector<double> blocks;
    double expected = 0;
    for (int64_t b = 0; b < kBlocks; ++b) {
      blocks.push_back(value(b));
      expected += blocks.back();
    }
    Copy(ctx.compute(), Tensor(blocks.data(), {kBlocks}, DType::kF64, Device{}), sums.local(table));
    sums.SumParams(ctx.compute());
    EXPECT_EQ(ReadToHost<double>(ctx, sums.param_sums()).front(), expected);
  }
}

// Of slices: by index in each, in double, and then by tensor-parallel rank. The vectors' sums are
// those of one rank.
TEST_P(BlockSumsOnDeviceTest, OfSlicesAddUpByRankAndThoseOfReplicatedGroupsCountOnce) {
  constexpr int kTensorRanks = 3;
  RunRanks(2 * kTensorRanks, [](RankWorld& world) {
    testing::MeshWorld mesh(world, kTensorRanks);
    Context ctx(GetParam(), world.ledger(), 0);
    const auto part = [](int rank, ParameterStore& store) {
      testing::AddPartOfSmallModel(store, rank, kTensorRanks);
    };
    // Depends on the slice too, but for vectors.
    const auto value = [](const ParamSpec& spec, int tensor_rank, int64_t number) {
      return BlockValue(number + (spec.slice.has_value() ? 100 * tensor_rank : 0));
    };
    ParameterStore store;
    part(mesh.tensor().rank(), store);
    store.Allocate(ctx.device(), world.ledger(), mesh.data(), WeightStorage::kFp32);
    BlockSums sums(ctx, store, mesh.axes(), "sums", [](GroupId) { return true; });
    for (int g = 0; g < store.num_groups(); ++g) {
      const Tensor local = sums.local(GroupId{g});
      std::vector<double> blocks(static_cast<size_t>(local.elements()));
      ForEachBlock(store, GroupId{g}, [&](const ShardBlock& block) {
        blocks[static_cast<size_t>(block.index)] =
            value(store.spec(block.param), mesh.tensor().rank(),
                  block.param_begin / store.layout(GroupId{g}).block_elements);
      });
      Copy(ctx.compute(), Tensor(blocks.data(), local.shape(), DType::kF64, Device{}), local);
      ctx.compute().Synchronize();
    }
    sums.SumParams(ctx.compute());
    const std::vector<double> actual = ReadToHost<double>(ctx, sums.param_sums());
    for (int i = 0; i < store.num_params(); ++i) {
      const ParamId id{i};
      const int64_t block = store.layout(store.group_of(id)).block_elements;
      double expected = 0;
      for (int rank = 0; rank < (store.spec(id).slice.has_value() ? kTensorRanks : 1); ++rank) {
        ParameterStore slices;
        part(rank, slices);
        double sum = 0;
        for (int64_t b = 0; b < CeilDiv(slices.spec(id).shape.elements(), block); ++b) {
          sum += value(slices.spec(id), rank, b);
        }
        expected += sum;
      }
      EXPECT_EQ(actual[static_cast<size_t>(i)], expected) << store.spec(id).name;
    }
  });
}

TEST(BlockSumsTest, LeavesOtherGroupsOut) {
  RunRanks(2, [](RankWorld& world) {
    Context ctx(Device{}, world.ledger(), 0);
    ParameterStore store;
    AddSmallModel(store);
    store.Allocate(Device{}, world.ledger(), world.communicator(), WeightStorage::kFp32);
    BlockSums sums(ctx, store, world.communicator(), "sums",
                   [](GroupId id) { return id == testing::kBlock0; });
    EXPECT_FALSE(sums.includes(testing::kTable));
    // q0 1 block, k0 1, up0 3: 5 blocks, 3 of them (with padding) on each rank.
    // And a sum for each of the 7 parameters.
    EXPECT_EQ(world.ledger().bytes(MemoryCategory::kCommunication), (2 * 3 + 7) * 8);
    EXPECT_EQ(sums.local(testing::kBlock0).elements(), 3);
  });
}

}  // namespace
}  // namespace panthera
