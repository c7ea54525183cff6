#include "launcher/device_choice.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kNoDriver[] = "no GPU can be used: no driver";

VisibleGpus Sees(const std::string& host, const std::vector<std::string>& ids) {
  return {.host = host, .ids = ids, .why_none = ids.empty() ? kNoDriver : ""};
}

// `workers` on each of `hosts`, all of which see the same `gpus` GPUs of their host.
std::vector<VisibleGpus> Job(int hosts, int workers, int gpus) {
  std::vector<VisibleGpus> ranks;
  for (int h = 0; h < hosts; ++h) {
    const std::string host = "node" + std::to_string(h);
    std::vector<std::string> ids;
    for (int g = 0; g < gpus; ++g) {
      ids.push_back(host + " gpu " + std::to_string(g));
    }
    for (int w = 0; w < workers; ++w) {
      ranks.push_back(Sees(host, ids));
    }
  }
  return ranks;
}

// The ordinal of each worker; -1 for the CPU.
std::vector<int> Ordinals(const DeviceOptions& options, const std::vector<VisibleGpus>& ranks) {
  const absl::StatusOr<DeviceAssignment> assignment = AssignDevices(options, ranks);
  EXPECT_TRUE(assignment.ok()) << assignment.status();
  std::vector<int> ordinals;
  if (assignment.ok()) {
    for (const Device device : assignment->devices) {
      ordinals.push_back(device.is_cuda() ? device.ordinal : -1);
    }
  }
  return ordinals;
}

std::string ErrorOf(const DeviceOptions& options, const std::vector<VisibleGpus>& ranks) {
  return std::string(AssignDevices(options, ranks).status().message());
}

constexpr DeviceOptions kAuto{.kind = DeviceChoice::kAuto};
constexpr DeviceOptions kCuda{.kind = DeviceChoice::kCuda};
constexpr DeviceOptions kCpu{.kind = DeviceChoice::kCpu};
constexpr DeviceOptions kSharing{.kind = DeviceChoice::kCuda, .sharing = DeviceSharing::kMpi};

TEST(AssignDevicesTest, WorkersOfAHostTakeItsGpusInTurn) {
  EXPECT_EQ(Ordinals(kCuda, Job(1, 4, 4)), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(Ordinals(kCuda, Job(2, 2, 4)), (std::vector<int>{0, 1, 0, 1}));
}

TEST(AssignDevicesTest, AutoTakesGpusWhereAllWorkersHaveThemAndTheCpuWhereNoneHas) {
  EXPECT_EQ(Ordinals(kAuto, Job(1, 2, 2)), (std::vector<int>{0, 1}));
  EXPECT_EQ(Ordinals(kAuto, Job(2, 2, 0)), (std::vector<int>{-1, -1, -1, -1}));
}

TEST(AssignDevicesTest, CpuLeavesGpusAlone) {
  EXPECT_EQ(Ordinals(kCpu, Job(1, 3, 2)), (std::vector<int>{-1, -1, -1}));
}

// As with srun --gpus-per-task=1: everybody's only GPU has the ordinal 0.
TEST(AssignDevicesTest, AGpuThatTheLauncherGaveToOneWorkerIsItsOwn) {
  EXPECT_EQ(Ordinals(kCuda, {Sees("a", {"x"}), Sees("a", {"y"}), Sees("a", {"z"})}),
            (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(Ordinals(kCuda, {Sees("a", {"x"}), Sees("a", {"x", "y"})}), (std::vector<int>{0, 1}));
}

TEST(AssignDevicesTest, MoreWorkersThanGpusAreRefusedWithBothNumbersAndTheWayOut) {
  EXPECT_THAT(ErrorOf(kCuda, Job(1, 3, 2)), AllOf(HasSubstr("host node0: 3 workers but 2 GPUs"),
                                                  HasSubstr("--set device.sharing=mpi")));
  EXPECT_THAT(ErrorOf(kAuto, Job(1, 2, 1)), HasSubstr("2 workers but 1 GPU;"));
  std::vector<VisibleGpus> uneven = Job(1, 2, 2);
  uneven.push_back(Sees("small", {"s"}));
  uneven.push_back(Sees("small", {"s"}));
  EXPECT_THAT(ErrorOf(kCuda, uneven), HasSubstr("host small: 2 workers but 1 GPU;"));
}

TEST(AssignDevicesTest, SharingSpreadsWorkersEvenly) {
  EXPECT_EQ(Ordinals(kSharing, Job(1, 5, 2)), (std::vector<int>{0, 1, 0, 1, 0}));
  EXPECT_EQ(AssignDevices(kSharing, Job(1, 5, 2))->most_sharers, 3);
  EXPECT_EQ(AssignDevices(kSharing, Job(2, 2, 2))->most_sharers, 1);
  EXPECT_EQ(AssignDevices(kCpu, Job(2, 2, 2))->most_sharers, 1);
}

TEST(AssignDevicesTest, HostsWithAndWithoutGpusDoNotMix) {
  std::vector<VisibleGpus> ranks = Job(1, 2, 2);
  ranks.push_back(Sees("bare", {}));
  for (const DeviceOptions& options : {kAuto, kCuda, kSharing}) {
    EXPECT_THAT(ErrorOf(options, ranks), AllOf(HasSubstr("host bare: "), HasSubstr(kNoDriver),
                                               HasSubstr("host node0 has GPUs")));
  }
  EXPECT_EQ(Ordinals(kCpu, ranks), (std::vector<int>{-1, -1, -1}));
}

TEST(AssignDevicesTest, CudaWithoutAnyGpuSaysWhyThereIsNone) {
  EXPECT_EQ(ErrorOf(kCuda, Job(1, 2, 0)), kNoDriver);
}

TEST(GatherVisibleGpusTest, EveryRankKnowsWhatAllFind) {
  testing::RunRanks(3, [](testing::RankWorld& world) {
    const std::vector<VisibleGpus> ranks = GatherVisibleGpus(world.host(), kAuto);
    ASSERT_EQ(ranks.size(), 3u);
    for (const VisibleGpus& rank : ranks) {
      EXPECT_NE(rank.host, "");
      EXPECT_NE(rank.ids.empty(), rank.why_none.empty()) << "a GPU, or why there is none";
      EXPECT_EQ(rank.ids, ranks[0].ids) << "threads of one process see the same";
    }
    EXPECT_TRUE(GatherVisibleGpus(world.host(), kCpu)[1].ids.empty()) << "nobody looked";
  });
}

TEST(MoreGpusHintTest, RepeatsTheCommandForAllGpus) {
  const std::string arguments[] = {"train", "a.toml", "--set", "train.steps=5"};
  EXPECT_THAT(MoreGpusHint(8, arguments),
              AllOf(HasSubstr("8 GPUs"),
                    HasSubstr("mpirun -np 8 panthera train a.toml --set train.steps=5")));
  EXPECT_EQ(MoreGpusHint(1, arguments), "");
}

}  // namespace
}  // namespace panthera
