// The memory through which the MPI communicator passes tensors of a GPU, counted by the emulation.
#include <memory>

#include "gtest/gtest.h"

#include "runtime/comm/mpi_communicator.h"
#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/simt/emulator/device_state.h"
#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

const Device kGpu{DeviceKind::kCuda, 0};

TEST(MpiStagingTest, IsTakenOnceWithTheFirstAllocationAndIsAsLargeAsAsked) {
  constexpr int64_t kStaging = 1000;
  constexpr int64_t kLength = 5000;
  simt::DeviceState& gpu = simt::DeviceState::Get();
  const std::unique_ptr<Communicator> comm =
      CreateMpiCommunicator(MpiTestRuntime(), /*color=*/0, {.staging_bytes = kStaging});
  MemoryLedger ledger;
  const size_t before = gpu.used_bytes();
  const Shape shape{comm->size(), kLength};
  const TravelingTensor send(*comm, ledger, shape, DType::kU8, kGpu);
  const TravelingTensor recv(*comm, ledger, shape, DType::kU8, kGpu);
  const int64_t tensors = 2 * shape.elements();
  EXPECT_EQ(gpu.used_bytes() - before, static_cast<size_t>(tensors + 2 * kStaging));
  EXPECT_EQ(ledger.total_bytes(), tensors) << "the staging memory outlives its first user's ledger";

  const int64_t allocations = gpu.counts().allocations;
  Stream stream(kGpu);
  comm->AllToAll(send.tensor, recv.tensor, stream);
  comm->AllGather(send.tensor.Slice(0, 1), recv.tensor, stream);
  comm->Broadcast(recv.tensor, 0, stream);
  EXPECT_EQ(gpu.counts().allocations, allocations);
}

}  // namespace
}  // namespace panthera::testing
