#include "launcher/world.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "runtime/base/check.h"
#include "runtime/comm/reduce.h"
#include "runtime/device/cuda_device.h"
#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/support/mpi_test_main.h"

namespace panthera::testing {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<World> Connect(const DeviceOptions& device) {
  const MpiRuntime& runtime = MpiTestRuntime();
  return ConnectWorld(runtime, ParallelOptions(), device, ConnectHosts(runtime));
}

// Both communicators of the world do their work among all ranks.
void ExpectConnected(World& world) {
  const int rank = world.mesh.rank();
  MemoryLedger ledger;
  Stream stream(world.device);
  Communicator& comm = *world.data_parallel;
  TravelingTensor full(comm, ledger, {comm.size(), 100}, DType::kF32, world.device);
  const Tensor own = full.tensor.Slice(rank, rank + 1);
  FillRow(own, rank, 0, stream);
  comm.AllGather(own, full.tensor, stream);
  for (int r = 0; r < comm.size(); ++r) {
    EXPECT_EQ(WrongBytes(full.tensor.Slice(r, r + 1), r, 0, stream), 0);
  }
  Stream host_stream(Device{});
  double number = rank;
  AllReduceSum(world.host_data_parallel(), {&number, 1}, host_stream);
  EXPECT_EQ(number, comm.size() * (comm.size() - 1) / 2);
}

TEST(ConnectWorldTest, OnCpusTensorsAndHostNumbersTravelTheSameWay) {
  absl::StatusOr<World> world = Connect({.kind = DeviceChoice::kCpu});
  ASSERT_TRUE(world.ok()) << world.status();
  EXPECT_TRUE(world->device.is_cpu());
  EXPECT_EQ(&world->host_data_parallel(), world->data_parallel.get());
  ExpectConnected(*world);
}

// The ranks of the job that an axis has, in its order.
std::vector<double> MembersOf(Communicator& axis) {
  const MpiRuntime& runtime = MpiTestRuntime();
  Stream host{Device{}};
  std::vector<double> members(static_cast<size_t>(axis.size()), -1);
  members[static_cast<size_t>(axis.rank())] = runtime.rank();
  const Tensor all(members.data(), {axis.size(), 1}, DType::kF64, Device{});
  axis.AllGather(all.Slice(axis.rank(), axis.rank() + 1), all, host);
  return members;
}

TEST(ConnectWorldTest, EveryMeshHasTheRightRanksOnBothAxes) {
  const MpiRuntime& runtime = MpiTestRuntime();
  for (int tensor = 1; tensor <= runtime.size(); ++tensor) {
    if (runtime.size() % tensor != 0) {
      continue;
    }
    SCOPED_TRACE(tensor);
    absl::StatusOr<World> world = ConnectWorld(runtime, {.tensor = tensor},
                                               {.kind = DeviceChoice::kCpu}, ConnectHosts(runtime));
    ASSERT_TRUE(world.ok()) << world.status();
    std::vector<double> layer_mates;
    std::vector<double> replicas;
    for (int rank = 0; rank < runtime.size(); ++rank) {
      if (rank / tensor == runtime.rank() / tensor) {
        layer_mates.push_back(rank);
      }
      if (rank % tensor == runtime.rank() % tensor) {
        replicas.push_back(rank);
      }
    }
    EXPECT_EQ(MembersOf(*world->tensor_parallel), layer_mates);
    EXPECT_EQ(MembersOf(world->host_tensor_parallel()), layer_mates);
    EXPECT_EQ(MembersOf(*world->data_parallel), replicas);
    EXPECT_EQ(MembersOf(world->host_data_parallel()), replicas);
    EXPECT_EQ(world->mesh.rank(), runtime.rank());
    EXPECT_EQ(world->mesh.world_size(), runtime.size());
  }
}

TEST(ConnectWorldTest, AMeshThatIsNotThatOfTheJobIsRefusedOnAllRanksAlike) {
  const MpiRuntime& runtime = MpiTestRuntime();
  const int size = runtime.size();
  for (const ParallelOptions& options :
       {ParallelOptions{.data = 0, .tensor = size + 1}, ParallelOptions{.data = size + 1},
        ParallelOptions{.data = 2, .tensor = size}}) {
    const absl::StatusOr<World> world =
        ConnectWorld(runtime, options, {.kind = DeviceChoice::kCpu}, ConnectHosts(runtime));
    const std::string message(world.status().message());
    EXPECT_THAT(message, HasSubstr("use "));
    EXPECT_EQ(MpiTestWorld().host().Broadcast(message, 0), message);
  }
}

TEST(ConnectWorldTest, WorkersThatShareAGpuExchangeTensorsThroughMpi) {
  const absl::StatusOr<int> gpus = CountCudaDevices();
  if (!gpus.ok()) {
    GTEST_SKIP() << gpus.status();
  }
  absl::StatusOr<World> world =
      Connect({.kind = DeviceChoice::kCuda, .sharing = DeviceSharing::kMpi});
  ASSERT_TRUE(world.ok()) << world.status();
  EXPECT_EQ(world->device, (Device{DeviceKind::kCuda, MpiTestRuntime().local_rank() % *gpus}));
  ExpectConnected(*world);
}

TEST(ConnectWorldTest, MoreWorkersThanGpusAreRefusedOnAllRanksAlike) {
  const absl::StatusOr<int> gpus = CountCudaDevices();
  if (!gpus.ok() || MpiTestRuntime().local_size() <= *gpus) {
    GTEST_SKIP() << "needs a GPU, real or emulated, and more ranks than there are";
  }
  const absl::StatusOr<World> world = Connect({.kind = DeviceChoice::kAuto});
  const std::string message(world.status().message());
  EXPECT_THAT(message, HasSubstr("--set device.sharing=mpi"));
  EXPECT_EQ(MpiTestWorld().host().Broadcast(message, 0), message);
}

TEST(ConnectWorldTest, WhereThereIsNoGpuAutoIsTheCpuAndCudaAnError) {
  const absl::StatusOr<int> gpus = CountCudaDevices();
  if (gpus.ok()) {
    GTEST_SKIP() << "there is a GPU, real or emulated";
  }
  absl::StatusOr<World> world = Connect({.kind = DeviceChoice::kAuto});
  ASSERT_TRUE(world.ok()) << world.status();
  EXPECT_TRUE(world->device.is_cpu());
  EXPECT_EQ(Connect({.kind = DeviceChoice::kCuda}).status().message(), gpus.status().message());
}

}  // namespace
}  // namespace panthera::testing
