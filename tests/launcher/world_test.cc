#include "launcher/world.h"

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(ThreadsPerRankTest, UnboundWorkersShareTheMachine) {
  EXPECT_EQ(ThreadsPerRank(/*online=*/64, /*allowed=*/64, /*local_size=*/1), 64);
  EXPECT_EQ(ThreadsPerRank(64, 64, 8), 8);
  EXPECT_EQ(ThreadsPerRank(64, 64, 3), 21);
}

TEST(ThreadsPerRankTest, AWorkerBoundToCoresOfItsOwnTakesThemAll) {
  EXPECT_EQ(ThreadsPerRank(64, 8, 8), 8);
  EXPECT_EQ(ThreadsPerRank(64, 1, 8), 1);
  EXPECT_EQ(ThreadsPerRank(64, 32, 2), 32);
}

TEST(ThreadsPerRankTest, WorkersConfinedToTheSameCoresShareThem) {
  EXPECT_EQ(ThreadsPerRank(64, 48, 2), 24);
  EXPECT_EQ(ThreadsPerRank(64, 32, 4), 8);
}

TEST(ThreadsPerRankTest, IsAtLeastOne) {
  EXPECT_EQ(ThreadsPerRank(2, 2, 8), 1);
  EXPECT_EQ(ThreadsPerRank(1, 1, 1), 1);
}

TEST(ThreadsPerRankTest, MoreThan1024CoresAreCores) {
  EXPECT_EQ(ThreadsPerRank(2048, 2048, 2), 1024);
}

}  // namespace
}  // namespace panthera
