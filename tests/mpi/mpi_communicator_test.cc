#include "runtime/comm/mpi_communicator.h"

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/comm/host_group.h"
#include "tests/runtime/comm/communicator_conformance.h"
#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/support/devices.h"
#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

class MpiConformanceTest : public ::testing::TestWithParam<std::tuple<ConformanceCase, Device>> {};

TEST_P(MpiConformanceTest, Holds) {
  const auto& [conformance, device] = GetParam();
  RankWorld world = OnDevice(MpiTestWorld(), device);
  conformance.run(world);
}

std::string TestName(const ::testing::TestParamInfo<MpiConformanceTest::ParamType>& test) {
  return std::get<0>(test.param).name;
}

INSTANTIATE_TEST_SUITE_P(AllCases, MpiConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(ConformanceCases()),
                                            ::testing::Values(Device{})),
                         TestName);
// Staged through host memory; on a machine with one GPU all ranks share it.
INSTANTIATE_TEST_SUITE_P(OnAGpu, MpiConformanceTest,
                         ::testing::Combine(::testing::ValuesIn(TensorConformanceCases()),
                                            ::testing::ValuesIn(Gpus())),
                         TestName);

class MpiPiecesTest : public ::testing::TestWithParam<Device> {};

// What moves more than 2^31 bytes at once, or more than the staging memory holds, does so piece by
// piece; here a piece is at most 64 bytes.
TEST_P(MpiPiecesTest, MakeUpTheWhole) {
  RankWorld world = OnDevice(MpiTestWorld(), GetParam());
  const std::unique_ptr<Communicator> comm = CreateMpiCommunicator(
      MpiTestRuntime(), /*color=*/0, {.max_piece_bytes = 64, .staging_bytes = 100});
  for (const int64_t length : {1, 63, 64, 65, 128, 1000}) {
    const Shape shape{comm->size(), length};
    TravelingTensor send(*comm, world.ledger(), shape, DType::kU8, world.device());
    TravelingTensor recv(*comm, world.ledger(), shape, DType::kU8, world.device());
    for (int r = 0; r < comm->size(); ++r) {
      FillRow(send.tensor.Slice(r, r + 1), comm->rank(), r, world.stream());
    }
    comm->AllToAll(send.tensor, recv.tensor, world.stream());
    for (int r = 0; r < comm->size(); ++r) {
      EXPECT_EQ(WrongBytes(recv.tensor.Slice(r, r + 1), r, comm->rank(), world.stream()), 0)
          << length;
    }

    const Tensor shard = send.tensor.Slice(0, 1);
    FillRow(shard, comm->rank(), 0, world.stream());
    comm->AllGather(shard, recv.tensor, world.stream());
    const Tensor own_row = send.tensor.Slice(comm->rank(), comm->rank() + 1);
    FillRow(own_row, comm->rank(), 0, world.stream());
    comm->AllGather(own_row, send.tensor, world.stream());
    for (int r = 0; r < comm->size(); ++r) {
      EXPECT_EQ(WrongBytes(recv.tensor.Slice(r, r + 1), r, 0, world.stream()), 0) << length;
      EXPECT_EQ(WrongBytes(send.tensor.Slice(r, r + 1), r, 0, world.stream()), 0)
          << length << " in place";
    }

    const int root = comm->size() - 1;
    FillRow(shard, comm->rank(), 1, world.stream());
    comm->Broadcast(shard, root, world.stream());
    EXPECT_EQ(WrongBytes(shard, root, 1, world.stream()), 0) << length;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, MpiPiecesTest, ::testing::ValuesIn(ComputeDevices()), DeviceName);

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
