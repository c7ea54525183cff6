#include "runtime/comm/thread_communicator.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/support/rank_harness.h"

namespace panthera::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kLong{120};

TEST(ThreadCommunicatorTest, MeetingHoldsRanksUntilAllHaveCome) {
  std::atomic<int> came = 0;
  RunRanks(5, [&](RankWorld& world) {
    for (int round = 1; round <= 50; ++round) {
      ++came;
      world.Meet();
      EXPECT_GE(came, 5 * round);
      world.Meet();
    }
  });
}

TEST(ThreadCommunicatorTest, RankThatReturnsEarlyEndsThoseThatWaitForIt) {
  std::atomic<int> ended = 0;
  const std::string reason = RunRanksFor(kLong, 3, [&](RankWorld& world) {
    if (world.rank() == 1) {
      return;
    }
    // Unwinding must run destructors.
    const auto count = [&](int*) { ++ended; };
    int anything = 0;
    const std::unique_ptr<int, decltype(count)> guard(&anything, count);
    world.Meet();
    ADD_FAILURE() << "met the others without rank 1";
  });
  EXPECT_THAT(reason, AllOf(HasSubstr("wait for one that has left"), HasSubstr("rank 1 has left"),
                            HasSubstr("waits in host AllGather")));
  EXPECT_EQ(ended, 2);
}

TEST(ThreadCommunicatorTest, RankThatEntersACallAfterAPeerLeftIsEndedToo) {
  std::atomic<bool> left = false;
  const std::string reason = RunRanksFor(kLong, 2, [&](RankWorld& world) {
    if (world.rank() == 0) {
      left = true;
      return;
    }
    while (!left) {
    }
    TravelingTensor full(world.communicator(), world.ledger(), {2, 5}, DType::kF32);
    world.communicator().AllGather(full.tensor.Slice(1, 2), full.tensor, world.stream());
    ADD_FAILURE() << "gathered without rank 0";
  });
  EXPECT_THAT(reason, AllOf(HasSubstr("wait for one that has left"), HasSubstr("rank 0 has left"),
                            HasSubstr("rank 1 waits in AllGather")));
}

TEST(ThreadCommunicatorTest, PeersOutsideTheGroupMayLeave) {
  RunRanks(4, [](RankWorld& world) {
    const std::unique_ptr<Communicator> pair = world.Split(world.rank() / 2);
    if (world.rank() < 2) {
      return;
    }
    for (int round = 0; round < 20; ++round) {
      TravelingTensor full(*pair, world.ledger(), {2, 5}, DType::kF32);
      FillRow(full.tensor.Slice(pair->rank(), pair->rank() + 1), pair->rank(), 0, world.stream());
      pair->AllGather(full.tensor.Slice(pair->rank(), pair->rank() + 1), full.tensor,
                      world.stream());
      EXPECT_EQ(WrongBytes(full.tensor.Slice(0, 1), 0, 0, world.stream()), 0);
      EXPECT_EQ(WrongBytes(full.tensor.Slice(1, 2), 1, 0, world.stream()), 0);
    }
  });
}

TEST(ThreadCommunicatorTest, DifferentCallsAreNamedInsteadOfMixedUp) {
  const std::string reason = RunRanksFor(kLong, 2, [](RankWorld& world) {
    Communicator& comm = world.communicator();
    TravelingTensor a(comm, world.ledger(), {2, 5}, DType::kF32);
    TravelingTensor b(comm, world.ledger(), {2, 5}, DType::kF32);
    if (world.rank() == 0) {
      comm.AllToAll(a.tensor, b.tensor, world.stream());
    } else {
      comm.AllGather(a.tensor.Slice(0, 1), b.tensor, world.stream());
    }
    ADD_FAILURE() << "unequal calls met";
  });
  EXPECT_THAT(reason, AllOf(HasSubstr("rank 0 AllToAll of 40 bytes of fp32"),
                            HasSubstr("rank 1 AllGather of 20 bytes of fp32")));
}

TEST(ThreadCommunicatorTest, DifferentLengthsTypesAndRootsAreRefused) {
  for (const int what : {0, 1, 2}) {
    const std::string reason = RunRanksFor(kLong, 2, [what](RankWorld& world) {
      const bool odd = world.rank() == 1;
      const int64_t length = what == 0 && odd ? 16 : 8;
      const DType dtype = what == 1 && odd ? DType::kI32 : DType::kF32;
      TravelingTensor buffer(world.communicator(), world.ledger(), {length}, dtype);
      world.communicator().Broadcast(buffer.tensor, what == 2 && odd ? 1 : 0, world.stream());
      ADD_FAILURE() << "unequal calls met";
    });
    EXPECT_THAT(reason, HasSubstr("ranks issue different calls")) << what;
  }
}

TEST(ThreadCommunicatorTest, PastDeadlineEndsWaitingRanksAndSaysWhereTheyWait) {
  // Rank 1 computes until it sees that rank 0 has been ended.
  std::atomic<bool> rank0_ended = false;
  const std::string reason = RunRanksFor(std::chrono::seconds(1), 2, [&](RankWorld& world) {
    const auto tell = [&](int*) { rank0_ended = true; };
    int anything = 0;
    if (world.rank() == 0) {
      const std::unique_ptr<int, decltype(tell)> guard(&anything, tell);
      world.Meet();
    }
    while (!rank0_ended) {
    }
  });
  EXPECT_EQ(reason, "the deadline has passed: rank 0 waits in host AllGather, rank 1 runs");
}

TEST(ThreadCommunicatorTest, RanksThatLeaveOneByOneLeaveNobodyBehind) {
  const std::string reason = RunRanksFor(kLong, 4, [](RankWorld& world) {
    for (int round = 0; round < 10 * (world.rank() + 1); ++round) {
      world.Meet();
    }
  });
  EXPECT_THAT(reason, HasSubstr("wait for one that has left: rank 0 has left"));
}

TEST(RankHarnessTest, RunsEveryRankOnceWithItsOwnNumber) {
  std::vector<int> runs(7, 0);
  RunRanks(7, [&](RankWorld& world) {
    EXPECT_EQ(world.size(), 7);
    EXPECT_EQ(world.communicator().rank(), world.rank());
    EXPECT_EQ(world.communicator().size(), 7);
    ++runs[static_cast<size_t>(world.rank())];
  });
  EXPECT_EQ(runs, std::vector<int>(7, 1));
}

}  // namespace
}  // namespace panthera::testing
