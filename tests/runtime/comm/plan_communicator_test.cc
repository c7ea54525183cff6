#include "runtime/comm/plan_communicator.h"

#include <limits>

#include "gtest/gtest.h"

#include "runtime/comm/host_group.h"

namespace panthera {
namespace {

constexpr Device kMeta{DeviceKind::kMeta, 0};

TEST(PlanCommunicatorTest, CountsTheTrafficOfTensorsLargerThanAnyMemory) {
  PlanCommunicator comm(5, 1024);
  Stream stream(kMeta);
  const int64_t columns = int64_t{1} << 40;
  const Tensor full(nullptr, {1024, columns}, DType::kBF16, kMeta);
  comm.AllGather(full.Slice(5, 6), full, stream);
  EXPECT_EQ(comm.bytes_sent(), 1023 * columns * 2);
  comm.AllToAll(full, full, stream);
  EXPECT_EQ(comm.bytes_sent(), 2 * 1023 * columns * 2);
}

TEST(PlanCommunicatorDeathTest, RefusesToMoveData) {
  PlanCommunicator comm(0, 2);
  Stream stream(Device{});
  float memory[8] = {};
  const Tensor a(memory, {2, 2}, DType::kF32, Device{});
  const Tensor b(memory + 4, {2, 2}, DType::kF32, Device{});
  EXPECT_DEATH(comm.AllToAll(a, b, stream), "a plan has no peers");
  EXPECT_DEATH(comm.AllGather(a.Slice(0, 1), b, stream), "a plan has no peers");
  EXPECT_DEATH(comm.Broadcast(a, 0, stream), "a plan has no peers");
}

TEST(PlanHostGroupTest, EveryRankSaysTheSame) {
  PlanHostGroup group(2, 3);
  EXPECT_EQ(group.rank(), 2);
  EXPECT_EQ(group.AllGather("x"), (std::vector<std::string>{"x", "x", "x"}));
  EXPECT_EQ(group.Broadcast("y", 1), "y");
  EXPECT_EQ(Agree(group, absl::DataLossError("e")), absl::DataLossError("e"));
}

}  // namespace
}  // namespace panthera
