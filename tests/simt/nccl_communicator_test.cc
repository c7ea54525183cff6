// The NCCL communicator against the emulation's NCCL, which does a call when its stream comes to
// it: ranks are threads with an emulated GPU each.
#include "runtime/comm/nccl_communicator.h"

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/comm/mesh_axes.h"
#include "tests/runtime/comm/communicator_conformance.h"
#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/simt/emulator/device_state.h"
#include "tests/simt/include/nccl.h"
#include "tests/support/devices.h"
#include "tests/support/rank_harness.h"

namespace panthera::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const Device kGpu{DeviceKind::kCuda, 0};

std::unique_ptr<Communicator> Create(HostGroup& ranks) {
  absl::StatusOr<std::unique_ptr<Communicator>> comm = CreateNcclCommunicator(ranks, kGpu);
  CHECK_OK(comm.status());
  return *std::move(comm);
}

// The same ranks, with NCCL between them.
RankWorld WithNccl(RankWorld& world) {
  return RankWorld([&world](int color) { return world.SplitHost(color); },
                   [&world](int color) { return Create(*world.SplitHost(color)); }, kGpu);
}

class NcclConformanceTest
    : public ::testing::TestWithParam<std::tuple<ConformanceCase, int, simt::Execution>> {};

TEST_P(NcclConformanceTest, Holds) {
  const auto& [conformance, size, execution] = GetParam();
  RunRanks(size, [&, &conformance = conformance, &execution = execution](RankWorld& world) {
    simt::DeviceState::Get().options().execution = execution;
    RankWorld nccl = WithNccl(world);
    conformance.run(nccl);
  });
}

INSTANTIATE_TEST_SUITE_P(AllCases, NcclConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(TensorConformanceCases()),
                                            ::testing::Values(1, 2, 3, 4, 7),
                                            ::testing::Values(simt::Execution::kLate,
                                                              simt::Execution::kEarly)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) + "With" +
                                  std::to_string(std::get<1>(test.param)) +
                                  (std::get<2>(test.param) == simt::Execution::kLate ? "Late"
                                                                                     : "Early");
                         });

class NcclCommunicatorTest : public ::testing::Test {
 protected:
  static constexpr int64_t kLength = 50;

  // A tensor of every rank's row for every rank, and one for what arrives.
  struct Rows {
    explicit Rows(RankWorld& world)
        : send(world.communicator(), world.ledger(), {world.size(), kLength}, DType::kU8, kGpu),
          recv(world.communicator(), world.ledger(), {world.size(), kLength}, DType::kU8, kGpu) {
      for (int r = 0; r < world.size(); ++r) {
        FillRow(send.tensor.Slice(r, r + 1), world.rank(), r, world.stream());
      }
    }

    TravelingTensor send;
    TravelingTensor recv;
  };
};

TEST_F(NcclCommunicatorTest, CallsNeitherWaitOnTheHostNorAllocate) {
  RunRanks(3, [](RankWorld& world) {
    RankWorld nccl = WithNccl(world);
    const Rows rows(nccl);
    const simt::Counts before = simt::DeviceState::Get().counts();
    const Tensor own = rows.recv.tensor.Slice(nccl.rank(), nccl.rank() + 1);
    nccl.communicator().AllToAll(rows.send.tensor, rows.recv.tensor, nccl.stream());
    nccl.communicator().AllGather(own, rows.recv.tensor, nccl.stream());
    nccl.communicator().Broadcast(rows.recv.tensor, 0, nccl.stream());
    EXPECT_TRUE(nccl.communicator().Health().ok());
    const simt::Counts after = simt::DeviceState::Get().counts();
    EXPECT_EQ(after.host_waits, before.host_waits);
    EXPECT_EQ(after.allocations, before.allocations);
    EXPECT_EQ(after.default_stream_uses, before.default_stream_uses);
  });
}

// What another stream has not been told to wait for is not there: the emulation would show a
// trainer that forgets the event between its communication and its computation.
TEST_F(NcclCommunicatorTest, AnotherStreamSeesTheDataOnlyAfterAWait) {
  RunRanks(2, [](RankWorld& world) {
    RankWorld nccl = WithNccl(world);
    const Rows rows(nccl);
    Stream compute(kGpu);
    Event arrived(kGpu);
    nccl.communicator().AllToAll(rows.send.tensor, rows.recv.tensor, nccl.stream());
    arrived.Record(nccl.stream());
    const int peer = 1 - nccl.rank();
    const Tensor row = rows.recv.tensor.Slice(peer, peer + 1);
    EXPECT_GT(WrongBytes(row, peer, nccl.rank(), compute), 0);
    compute.WaitFor(arrived);
    EXPECT_EQ(WrongBytes(row, peer, nccl.rank(), compute), 0);
    world.Meet();
  });
}

// Streams that a rank's host waits for in another order than its peers' hosts do.
TEST_F(NcclCommunicatorTest, CallsOnSeveralStreamsAreDoneInTheOrderInWhichTheyWereMade) {
  RunRanks(2, [](RankWorld& world) {
    RankWorld nccl = WithNccl(world);
    const Rows first(nccl);
    const Rows second(nccl);
    Stream other(kGpu);
    nccl.communicator().AllToAll(first.send.tensor, first.recv.tensor, nccl.stream());
    nccl.communicator().AllToAll(second.send.tensor, second.recv.tensor, other);
    Stream& awaited = nccl.rank() == 0 ? nccl.stream() : other;
    awaited.Synchronize();
    const int peer = 1 - nccl.rank();
    for (const Rows* rows : {&first, &second}) {
      EXPECT_EQ(WrongBytes(rows->recv.tensor.Slice(peer, peer + 1), peer, nccl.rank(),
                           rows == &first ? nccl.stream() : other),
                0);
    }
  });
}

TEST_F(NcclCommunicatorTest, APeerThatIsLostShowsInTheHealthAndInTheWait) {
  RunRanks(3, [](RankWorld& world) {
    std::optional<RankWorld> nccl;
    nccl.emplace([&world](int color) { return world.SplitHost(color); },
                 [&world](int color) { return Create(*world.SplitHost(color)); }, kGpu);
    if (nccl->rank() == 1) {
      nccl.reset();
      world.Meet();
      return;
    }
    const Rows rows(*nccl);
    Communicator& comm = nccl->communicator();
    Event done(kGpu);
    comm.AllToAll(rows.send.tensor, rows.recv.tensor, nccl->stream());
    done.Record(nccl->stream());
    EXPECT_TRUE(comm.Health().ok()) << "nothing has run yet";
    const absl::Status lost = Await(done, comm);
    EXPECT_EQ(lost.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(lost.message()),
                AllOf(HasSubstr("remote process exited"), HasSubstr("NCCL_DEBUG=INFO")));
    EXPECT_EQ(comm.Health(), lost);
    // Further calls move nothing and wait for nobody.
    comm.AllGather(rows.send.tensor.Slice(0, 1), rows.recv.tensor, nccl->stream());
    nccl->stream().Synchronize();
    EXPECT_EQ(comm.Health(), lost);
    world.Meet();
  });
}

TEST_F(NcclCommunicatorTest, ARankThatCannotMakeAnIdIsAnErrorOnEveryRank) {
  RunRanks(3, [](RankWorld& world) {
    if (world.rank() == 0) {
      simt::FailNextUniqueId();
    }
    const auto comm = CreateNcclCommunicator(world.host(), kGpu);
    EXPECT_THAT(std::string(comm.status().message()), HasSubstr("looking for a network"));
    world.Meet();
  });
}

TEST_F(NcclCommunicatorTest, TheVersionIsTheLibrarys) {
  const absl::StatusOr<int> version = NcclVersion();
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(*version, 22809);
}

}  // namespace
}  // namespace panthera::testing
