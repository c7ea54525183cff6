#include "optim/gradient_flags.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"
#include "runtime/math/host_mirror.h"
#include "tests/optim/small_model.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::kBlock0;
using testing::kBlock1;
using testing::kVectors;
using testing::RankWorld;
using testing::RunRanks;
using testing::Worker;

constexpr Device kMeta{DeviceKind::kMeta, 0};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// A rank that marks groups as GradSync does.
struct Marker : Worker {
  Marker(Device device, MemoryLedger& ledger, MeshAxes axes,
         NonFinitePolicy policy = NonFinitePolicy::kTiger)
      : Worker(device, ledger, axes, testing::OptionsFor(Algorithm::kTiger)),
        flags(policy, ctx, store, axes) {
    flags.Clear();
  }

  // value(param, element, r) is the contribution of rank r; padding is NaN.
  void Mark(GroupId group, absl::FunctionRef<float(ParamId, int64_t, int64_t)> value) {
    flags.Mark(ctx.exchange(), group, Contributions(group, comm.size(), value));
    ctx.compute().Synchronize();
    ctx.exchange().Synchronize();
  }
  // The names of the tensors that are flagged, each with a space.
  std::string Flagged() {
    std::string names;
    const std::vector<uint8_t> all = ReadToHost<uint8_t>(ctx, flags.flags());
    for (int i = 0; i < store.num_params(); ++i) {
      names += all[static_cast<size_t>(i)] != 0 ? store.spec(ParamId{i}).name + " " : "";
    }
    return names;
  }
  std::string Counts() {
    std::string text;
    for (const int32_t count : ReadToHost<int32_t>(ctx, flags.counts())) {
      text += std::to_string(count) + " ";
    }
    return text;
  }

  GradientFlags flags;
};

TEST(GradientFlagsTest, EveryElementOfEveryRankCountsForItsTensorAlone) {
  RunRanks(3, [](RankWorld& world) {
    Marker marker(Device{}, world.ledger(), world.communicator());
    const ParamId up = *marker.store.Find("up0");
    const int64_t last = marker.store.spec(up).shape.elements() - 1;
    for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
      for (const int64_t at : {int64_t{0}, int64_t{1023}, int64_t{1024}, last}) {
        for (const int64_t from : {0, 2}) {
          marker.Mark(kBlock0, [&](ParamId id, int64_t i, int64_t r) {
            return id == up && i == at && r == from ? bad : kLargest / 4;
          });
          EXPECT_EQ(marker.Flagged(), "up0 ") << bad << " at " << at << " of rank " << from;
        }
      }
    }
    EXPECT_EQ(marker.Counts(), "0 0 0 24 0 0 0 ");
  });
}

TEST(GradientFlagsTest, EveryElementOfEverySliceCountsForItsLogicalTensorAlone) {
  RunRanks(6, [](RankWorld& world) {
    testing::MeshWorld mesh(world, 3);
    Marker marker(Device{}, world.ledger(), mesh.axes());
    const ParamId up = *marker.store.Find("up0");
    int64_t marked = 0;
    // Columns of each of the three slices, in rows of each of two shards.
    for (const int64_t at : {0, 15, 31, 80 * 32, 80 * 32 + 15, 81 * 32 - 1}) {
      for (const int64_t from : {0, 1}) {
        marker.Mark(kBlock0, [&](ParamId id, int64_t i, int64_t r) {
          return id == up && i == at && r == from ? kInfinity : 1.0F;
        });
        EXPECT_EQ(marker.Flagged(), "up0 ") << at << " of rank " << from;
        ++marked;
      }
    }
    EXPECT_EQ(marker.Counts(), absl::StrCat("0 0 0 ", marked, " 0 0 0 "));
  });
}

TEST(GradientFlagsTest, Row04OppositeInfinitiesAndASumThatOverflowsAreFound) {
  RunRanks(2, [](RankWorld& world) {
    Marker marker(Device{}, world.ledger(), world.communicator());
    marker.Mark(kBlock0, [](ParamId id, int64_t i, int64_t r) {
      const float sign = r == 0 ? 1.0F : -1.0F;
      return id.index == 1 && i == 5 ? sign * kInfinity : sign * kLargest;
    });
    EXPECT_EQ(marker.Flagged(), "q0 ");
    marker.Mark(kBlock0, [](ParamId id, int64_t i, int64_t) {
      return id.index == 2 && i == 159 ? kLargest : 1.0F;
    });
    EXPECT_EQ(marker.Flagged(), "k0 ");
  });
}

TEST(GradientFlagsTest, AMicroStepReplacesTheFlagsOfItsGroupAndAddsToTheCounts) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  Marker marker(Device{}, ledger, comm);
  const auto bad_in = [](int param) {
    return [param](ParamId id, int64_t i, int64_t) {
      return id.index == param && i == 0 ? std::nanf("") : 1.0F;
    };
  };
  // embed, q0, k0, up0, up1, gain, bias
  marker.Mark(kBlock0, bad_in(1));
  marker.Mark(kVectors, bad_in(6));
  EXPECT_EQ(marker.Flagged(), "q0 bias ");
  marker.Mark(kBlock0, bad_in(2));
  marker.Mark(kBlock1, bad_in(4));
  EXPECT_EQ(marker.Flagged(), "k0 up1 bias ");
  marker.Mark(kBlock0, bad_in(1));
  EXPECT_EQ(marker.Counts(), "0 2 1 0 1 0 1 ");
  marker.flags.Clear();
  EXPECT_EQ(marker.Flagged(), "");
  EXPECT_EQ(marker.Counts(), "0 0 0 0 0 0 0 ");
}

TEST(GradientFlagsTest, TensorsOfAGroupNeedNotBeNumberedInARow) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  Context ctx(Device{}, ledger, 0);
  ParameterStore store;
  const GroupId gains = store.AddGroup("gains", GroupKind::kReplicated);
  const GroupId block = store.AddGroup("block", GroupKind::kSharded);
  store.Add(gains, {"first", {8}, ParamKind::kGain});
  store.Add(block, {"matrix", {8, 8}, ParamKind::kMatrix});
  const ParamId second = store.Add(gains, {"second", {8}, ParamKind::kGain});
  store.Allocate(Device{}, ledger, comm, WeightStorage::kFp32);
  GradientFlags flags(NonFinitePolicy::kTiger, ctx, store, comm);
  std::vector<float> gradient(static_cast<size_t>(store.layout(gains).shard_elements));
  gradient[static_cast<size_t>(store.offset(second))] = NAN;
  flags.Mark(
      ctx.compute(), gains,
      Tensor(gradient.data(), {1, store.layout(gains).shard_elements}, DType::kF32, Device{}));
  EXPECT_EQ(ReadToHost<int32_t>(ctx, flags.counts()), (std::vector<int32_t>{0, 0, 1}));
}

TEST(GradientFlagsTest, SkipHasFlagsAndNoCounts) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  Marker marker(Device{}, ledger, comm, NonFinitePolicy::kSkip);
  EXPECT_EQ(marker.Flagged(), "");
  EXPECT_EQ(marker.flags.counts().elements(), 0);
}

TEST(GradientFlagsTest, StopHasNoFlagsAndNoMemory) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  Marker marker(Device{}, ledger, comm, NonFinitePolicy::kStop);
  EXPECT_EQ(marker.flags.flags().elements(), 0);
  EXPECT_EQ(marker.flags.counts().elements(), 0);
  for (const MemoryLedger::Entry& entry : ledger.entries()) {
    EXPECT_NE(entry.name, "gradient flags");
  }
}

TEST(GradientFlagsTest, MetaEntersTheBytesAndSendsTheTrafficOfARealMark) {
  RunRanks(3, [](RankWorld& world) {
    Marker real(Device{}, world.ledger(), world.communicator());
    const int64_t before = world.communicator().bytes_sent();
    real.Mark(kBlock0, [](ParamId, int64_t, int64_t) { return 1.0F; });
    MemoryLedger planned_ledger;
    PlanCommunicator plan(world.rank(), 3);
    Marker planned(kMeta, planned_ledger, plan);
    const int64_t shard = planned.store.layout(kBlock0).shard_elements;
    planned.flags.Mark(planned.ctx.exchange(), kBlock0,
                       Tensor(nullptr, {3, shard}, DType::kF32, kMeta));
    EXPECT_EQ(plan.bytes_sent(), world.communicator().bytes_sent() - before);
    EXPECT_EQ(plan.bytes_sent(), 3 * 4 * 2) << "four bytes for each tensor, to each of two ranks";
    EXPECT_EQ(planned_ledger.bytes(MemoryCategory::kCommunication),
              world.ledger().bytes(MemoryCategory::kCommunication));
  });
}

}  // namespace
}  // namespace panthera
