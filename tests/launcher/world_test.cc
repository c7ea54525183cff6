#include "launcher/world.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace panthera {
namespace {

// The threads of `worker`, given which cores each worker of the host may run on, as first core and
// number of cores.
int Threads(const std::vector<std::pair<size_t, size_t>>& cores, size_t worker) {
  constexpr size_t kMostCores = 2048;
  std::vector<int32_t> own(kMostCores);
  std::vector<int32_t> workers(kMostCores);
  for (size_t w = 0; w < cores.size(); ++w) {
    for (size_t i = 0; i < cores[w].second; ++i) {
      workers[cores[w].first + i] += 1;
      own[cores[w].first + i] += w == worker ? 1 : 0;
    }
  }
  return ThreadsPerRank(own, workers);
}

TEST(ThreadsPerRankTest, UnboundWorkersShareTheMachine) {
  EXPECT_EQ(Threads({{0, 64}}, 0), 64);
  EXPECT_EQ(Threads({{0, 64}, {0, 64}, {0, 64}, {0, 64}}, 3), 16);
  EXPECT_EQ(Threads({{0, 64}, {0, 64}, {0, 64}}, 1), 21);
}

TEST(ThreadsPerRankTest, AWorkerBoundToCoresOfItsOwnTakesThemAll) {
  EXPECT_EQ(Threads({{0, 8}, {8, 8}, {16, 8}}, 1), 8);
  EXPECT_EQ(Threads({{0, 1}, {1, 63}}, 0), 1);
  EXPECT_EQ(Threads({{0, 1}, {1, 63}}, 1), 63);
}

TEST(ThreadsPerRankTest, WorkersConfinedToTheSameFewCoresShareThem) {
  EXPECT_EQ(Threads({{60, 4}, {60, 4}}, 0), 2);
  EXPECT_EQ(Threads({{0, 32}, {0, 32}, {32, 32}, {32, 32}}, 2), 16);
}

// Each has half of the 8 shared cores and all of its other 8.
TEST(ThreadsPerRankTest, PartlySharedCoresCountForTheirPart) {
  EXPECT_EQ(Threads({{0, 16}, {8, 16}}, 0), 12);
}

TEST(ThreadsPerRankTest, IsAtLeastOne) {
  EXPECT_EQ(Threads({{0, 2}, {0, 2}, {0, 2}, {0, 2}}, 0), 1);
  EXPECT_EQ(Threads({{0, 0}}, 0), 1) << "where the system does not tell the cores";
}

TEST(ThreadsPerRankTest, MoreThan1024CoresAreCores) {
  EXPECT_EQ(Threads({{0, 2048}, {0, 2048}}, 0), 1024);
}

TEST(NeighboursTest, ShareHostsWhereEveryGroupLiesOnOne) {
  const std::vector<std::string> blocks = {"a", "a", "a", "a", "b", "b", "b", "b"};
  const std::vector<std::string> cyclic = {"a", "b", "a", "b", "a", "b", "a", "b"};
  for (const int size : {1, 2, 4}) {
    EXPECT_TRUE(NeighboursShareHosts(blocks, size)) << size;
    EXPECT_EQ(NeighboursShareHosts(cyclic, size), size == 1) << size;
  }
  EXPECT_FALSE(NeighboursShareHosts(blocks, 8));
}

}  // namespace
}  // namespace panthera
