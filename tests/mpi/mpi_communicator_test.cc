#include "runtime/comm/mpi_communicator.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/comm/host_group.h"
#include "tests/runtime/comm/communicator_conformance.h"
#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

class MpiConformanceTest : public ::testing::TestWithParam<ConformanceCase> {};

TEST_P(MpiConformanceTest, Holds) { GetParam().run(MpiTestWorld()); }

INSTANTIATE_TEST_SUITE_P(AllCases, MpiConformanceTest,
                         ::testing::ValuesIn(ConformanceCases().begin(), ConformanceCases().end()),
                         [](const auto& test) { return std::string(test.param.name); });

// What moves more than 2^31 bytes at once does so piece by piece; here a piece is 64 bytes.
TEST(MpiCommunicatorTest, PiecesMakeUpTheWhole) {
  RankWorld& world = MpiTestWorld();
  const std::unique_ptr<Communicator> comm =
      CreateMpiCommunicator(MpiTestRuntime(), /*color=*/0, {.max_piece_bytes = 64});
  for (const int64_t length : {1, 63, 64, 65, 128, 1000}) {
    const Shape shape{comm->size(), length};
    TravelingTensor send(*comm, world.ledger(), shape, DType::kU8);
    TravelingTensor recv(*comm, world.ledger(), shape, DType::kU8);
    for (int r = 0; r < comm->size(); ++r) {
      FillRow(send.tensor.Slice(r, r + 1), comm->rank(), r);
    }
    comm->AllToAll(send.tensor, recv.tensor, world.stream());
    for (int r = 0; r < comm->size(); ++r) {
      EXPECT_EQ(WrongBytes(recv.tensor.Slice(r, r + 1), r, comm->rank()), 0) << length;
    }

    const Tensor shard = send.tensor.Slice(0, 1);
    FillRow(shard, comm->rank(), 0);
    comm->AllGather(shard, recv.tensor, world.stream());
    const Tensor own_row = send.tensor.Slice(comm->rank(), comm->rank() + 1);
    FillRow(own_row, comm->rank(), 0);
    comm->AllGather(own_row, send.tensor, world.stream());
    for (int r = 0; r < comm->size(); ++r) {
      EXPECT_EQ(WrongBytes(recv.tensor.Slice(r, r + 1), r, 0), 0) << length;
      EXPECT_EQ(WrongBytes(send.tensor.Slice(r, r + 1), r, 0), 0) << length << " in place";
    }

    const int root = comm->size() - 1;
    FillRow(shard, comm->rank(), 1);
    comm->Broadcast(shard, root, world.stream());
    EXPECT_EQ(WrongBytes(shard, root, 1), 0) << length;
  }
}

// Under mpirun on one host, the ranks of the host are all ranks.
TEST(MpiRuntimeTest, LocalRanksCountTheRanksOfTheHost) {
  const MpiRuntime& runtime = MpiTestRuntime();
  EXPECT_EQ(runtime.local_size(), runtime.size());
  const std::vector<int> local = AllGatherValue(MpiTestWorld().host(), runtime.local_rank());
  for (int r = 0; r < runtime.size(); ++r) {
    EXPECT_EQ(local[static_cast<size_t>(r)], r);
  }
}

}  // namespace
}  // namespace panthera::testing
