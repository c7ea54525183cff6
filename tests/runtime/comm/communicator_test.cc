#include "runtime/comm/communicator.h"

#include <vector>

#include "gtest/gtest.h"

#include "runtime/comm/self_communicator.h"
#include "runtime/device/memory_ledger.h"

namespace panthera {
namespace {

class CommunicatorTest : public ::testing::Test {
 protected:
  Tensor Floats(const Shape& shape, int64_t offset = 0) {
    return {memory_ + offset, shape, DType::kF32, Device{}};
  }

  float memory_[64] = {};
  SelfCommunicator comm_;
  Stream stream_{Device{}};
};
using CommunicatorDeathTest = CommunicatorTest;

TEST_F(CommunicatorTest, AllocatesMemoryThatTheLedgerKnows) {
  MemoryLedger ledger;
  const Buffer buffer =
      comm_.Allocate(Device{}, ledger, MemoryCategory::kCommunication, "staging", 100);
  EXPECT_EQ(buffer.bytes(), 100);
  EXPECT_EQ(ledger.bytes(MemoryCategory::kCommunication), 100);
  EXPECT_EQ(ledger.entries()[0].name, "staging");
}

TEST_F(CommunicatorDeathTest, RefusesRankOutsideSize) {
  EXPECT_DEATH(
      {
        class Outside : public Communicator {
         public:
          Outside() : Communicator(2, 2) {}
          void DoAllToAll(const Tensor&, Tensor, Stream&) override {}
          void DoAllGather(const Tensor&, Tensor, Stream&) override {}
          void DoBroadcast(Tensor, int, Stream&) override {}
        } outside;
      },
      "rank < size \\(2 vs. 2\\)");
}

TEST_F(CommunicatorDeathTest, AllToAllRefusesWrongArguments) {
  const Tensor send = Floats({1, 4});
  EXPECT_DEATH(comm_.AllToAll(Floats({2, 4}), Floats({2, 4}, 16), stream_), "2 vs. 1");
  EXPECT_DEATH(comm_.AllToAll(send, Floats({1, 5}, 16), stream_), "\\[1, 4\\] vs. \\[1, 5\\]");
  EXPECT_DEATH(comm_.AllToAll(send, {memory_ + 16, {1, 4}, DType::kI32, Device{}}, stream_),
               "fp32 vs. int32");
  EXPECT_DEATH(comm_.AllToAll(send, Floats({1, 4}, 3), stream_), "Overlap");
  EXPECT_DEATH(comm_.AllToAll(send, send, stream_), "Overlap");
}

TEST_F(CommunicatorDeathTest, AllGatherRefusesWrongArguments) {
  EXPECT_DEATH(comm_.AllGather(Floats({4}), Floats({2, 2}, 16), stream_), "2 vs. 1");
  EXPECT_DEATH(comm_.AllGather(Floats({4}), Floats({1, 5}, 16), stream_), "5 vs. 4");
  EXPECT_DEATH(comm_.AllGather(Floats({4}), Floats({1, 4}, 3), stream_), "share memory");
  EXPECT_DEATH(comm_.AllGather(Floats({4}), {memory_ + 16, {1, 4}, DType::kI32, Device{}}, stream_),
               "fp32 vs. int32");
}

TEST_F(CommunicatorDeathTest, BroadcastRefusesRootOutsideSize) {
  EXPECT_DEATH(comm_.Broadcast(Floats({4}), 1, stream_), "1 vs. 1");
  EXPECT_DEATH(comm_.Broadcast(Floats({4}), -1, stream_), "-1 vs. 0");
}

TEST_F(CommunicatorDeathTest, RefusesTensorsThatAreNotOnTheStreamsDevice) {
  Stream meta(Device{DeviceKind::kMeta, 0});
  EXPECT_DEATH(comm_.AllToAll(Floats({1, 4}), Floats({1, 4}, 16), meta), "cpu");
  EXPECT_DEATH(comm_.AllGather(Floats({4}), Floats({1, 4}, 16), meta), "cpu");
  EXPECT_DEATH(comm_.Broadcast(Floats({4}), 0, meta), "cpu");
}

TEST_F(CommunicatorTest, AdjacentTensorsDoNotOverlap) {
  memory_[3] = 5;
  comm_.AllToAll(Floats({1, 4}), Floats({1, 4}, 4), stream_);
  EXPECT_EQ(memory_[7], 5);
}

}  // namespace
}  // namespace panthera
