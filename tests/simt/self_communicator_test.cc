#include "runtime/comm/self_communicator.h"

#include <memory>

#include "gtest/gtest.h"

#include "tests/runtime/comm/traveling_tensor.h"
#include "tests/simt/emulator/device_state.h"

namespace panthera::testing {
namespace {

TEST(SelfCommunicatorTest, CallsOnAGpuNeitherWaitOnTheHostNorAllocate) {
  const Device gpu{DeviceKind::kCuda, 0};
  MemoryLedger ledger;
  SelfCommunicator comm;
  Stream stream(gpu);
  const TravelingTensor send(comm, ledger, {1, 50}, DType::kU8, gpu);
  const TravelingTensor recv(comm, ledger, {1, 50}, DType::kU8, gpu);
  FillRow(send.tensor, 3, 4, stream);
  const simt::Counts before = simt::DeviceState::Get().counts();
  comm.AllToAll(send.tensor, recv.tensor, stream);
  comm.AllGather(send.tensor, recv.tensor, stream);
  comm.Broadcast(recv.tensor, 0, stream);
  const simt::Counts after = simt::DeviceState::Get().counts();
  EXPECT_EQ(after.host_waits, before.host_waits);
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.default_stream_uses, before.default_stream_uses);
  EXPECT_EQ(WrongBytes(recv.tensor, 3, 4, stream), 0);
}

}  // namespace
}  // namespace panthera::testing
