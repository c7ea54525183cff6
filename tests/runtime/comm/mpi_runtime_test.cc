#include "runtime/comm/mpi_runtime.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "runtime/comm/mpi_communicator.h"
#include "runtime/comm/mpi_host_group.h"

namespace panthera {
namespace {

// MPI can be initialised once in a process, so this is the only test of its binary.
TEST(MpiRuntimeTest, ProcessWithoutMpirunIsAJobOfOneRank) {
  const MpiRuntime runtime;
  EXPECT_EQ(runtime.rank(), 0);
  EXPECT_EQ(runtime.size(), 1);
  EXPECT_EQ(runtime.local_rank(), 0);
  EXPECT_EQ(runtime.local_size(), 1);

  const std::unique_ptr<HostGroup> host = CreateMpiHostGroup(runtime);
  EXPECT_EQ(host->AllGather("alone"), std::vector<std::string>{"alone"});

  const std::unique_ptr<Communicator> comm = CreateMpiCommunicator(runtime, /*color=*/0);
  EXPECT_EQ(comm->size(), 1);
  float numbers[2] = {1, 0};
  Stream stream(Device{});
  comm->AllGather({&numbers[0], {1}, DType::kF32, Device{}},
                  {&numbers[1], {1, 1}, DType::kF32, Device{}}, stream);
  EXPECT_EQ(numbers[1], 1);
}

}  // namespace
}  // namespace panthera
