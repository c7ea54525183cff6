// Whole training steps under the emulation: what the emulation sees that a GPU does not tell.
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "runtime/base/check.h"
#include "runtime/comm/nccl_communicator.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/simt/emulator/device_state.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int kRanks = 2;
constexpr int64_t kSteps = 3;

enum class Transport { kThreads, kNccl };

World WorldOf(RankWorld& ranks, Transport transport) {
  World world = testing::WorldOf(ranks, kGpu);
  if (transport == Transport::kNccl) {
    absl::StatusOr<std::unique_ptr<Communicator>> nccl = CreateNcclCommunicator(*world.host, kGpu);
    CHECK_OK(nccl.status());
    world.data_parallel_on_host = std::move(world.data_parallel);
    world.data_parallel = *std::move(nccl);
  }
  return world;
}

class EmulatedTrainingTest
    : public ::testing::TestWithParam<std::tuple<Accumulation, PublishMode>> {
 protected:
  EmulatedTrainingTest() {
    run_.options.train.global_batch = 4;
    run_.options.optim.accumulate = std::get<0>(GetParam());
    run_.options.optim.publish = std::get<1>(GetParam());
    run_.options.optim.weights = WeightStorage::kBf16Plus8;
    run_.options.model.tie = Tie::kTied;
  }

  Tensors Train(Transport transport, const simt::Options& options) {
    Tensors tensors;
    std::mutex mutex;
    RunRanks(kRanks, [&](RankWorld& rank_world) {
      simt::DeviceState::Get().options() = options;
      World world = WorldOf(rank_world, transport);
      const std::unique_ptr<Trainer> trainer =
          testing::NewTrainer(run_.options, world, rank_world.ledger());
      const DataLoader data = run_.OpenData();
      for (int64_t step = 0; step < kSteps; ++step) {
        const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
        ASSERT_TRUE(result.ok()) << result.status();
      }
      // Both ranks must be at their ends before one waits for the other's turn below.
      trainer->instance().context().exchange().Synchronize();
      const std::lock_guard<std::mutex> lock(mutex);
      testing::CopyShards(*trainer, tensors);
    });
    return tensors;
  }

  TinyRun run_{kSteps};
};

INSTANTIATE_TEST_SUITE_P(
    Modes, EmulatedTrainingTest,
    ::testing::Combine(::testing::Values(Accumulation::kMomentum, Accumulation::kGradient),
                       ::testing::Values(PublishMode::kWeights, PublishMode::kDirection)),
    [](const auto& test) {
      return absl::StrCat(EnumName(std::get<0>(test.param)), "_",
                          EnumName(std::get<1>(test.param)));
    });

// Work whose wait is missing is done too late in one run, and in time in the other.
TEST_P(EmulatedTrainingTest, OrderOfThreadsAndStreamsDoesNotChangeABit) {
  const Tensors expected = Train(Transport::kNccl, {simt::Execution::kLate, /*order_seed=*/0});
  EXPECT_EQ(Train(Transport::kNccl, {simt::Execution::kEarly, /*order_seed=*/0}), expected);
  EXPECT_EQ(Train(Transport::kNccl, {simt::Execution::kLate, /*order_seed=*/11}), expected);
  EXPECT_EQ(Train(Transport::kNccl, {simt::Execution::kLate, /*order_seed=*/12}), expected);
}

TEST_P(EmulatedTrainingTest, TheCommunicatorDoesNotChangeABit) {
  EXPECT_EQ(Train(Transport::kNccl, {}), Train(Transport::kThreads, {}));
}

TEST_P(EmulatedTrainingTest, AStepAllocatesNothingAndWaitsForNothing) {
  run_.options.train.global_batch = 8;
  RunRanks(kRanks, [&](RankWorld& rank_world) {
    World world = WorldOf(rank_world, Transport::kNccl);
    const std::unique_ptr<Trainer> trainer =
        testing::NewTrainer(run_.options, world, rank_world.ledger());
    const DataLoader data = run_.OpenData();
    for (int64_t step = 0; step < kSteps; ++step) {
      const simt::Counts before = simt::DeviceState::Get().counts();
      ASSERT_TRUE(trainer->TrainStep(step, &data).ok());
      const simt::Counts& after = simt::DeviceState::Get().counts();
      // The host looks at the end of a step (Await) and waits for nothing else.
      EXPECT_EQ(after.host_waits, before.host_waits);
      EXPECT_EQ(after.allocations, before.allocations);
      EXPECT_EQ(after.default_stream_uses, before.default_stream_uses);
      EXPECT_GT(after.launches, before.launches);
    }
  });
}

}  // namespace
}  // namespace panthera
