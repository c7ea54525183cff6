// Whole training steps under the emulation: what the emulation sees that a GPU does not tell.
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "runtime/base/check.h"
#include "runtime/comm/nccl_communicator.h"
#include "tests/equivalence/tiny_run.h"
#include "tests/simt/emulator/device_state.h"

namespace panthera {
namespace {

using ::testing::IsEmpty;
using testing::RankWorld;
using testing::RunRanks;
using testing::Tensors;
using testing::TinyRun;

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr int64_t kSteps = 2;

// The names of tensors whose values are not those of `expected`.
std::vector<std::string> Differing(const Tensors& actual, const Tensors& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  std::vector<std::string> names;
  for (const auto& [name, values] : expected) {
    const auto its = actual.find(name);
    if (its == actual.end() || its->second != values) {
      names.push_back(name);
    }
  }
  return names;
}

enum class Transport { kThreads, kNccl };

// Puts NCCL in the place of the communicator of one axis, whose ranks pass the same color.
void UseNccl(RankWorld& ranks, int color, std::unique_ptr<Communicator>& on_device,
             std::unique_ptr<Communicator>& on_host) {
  const std::unique_ptr<HostGroup> members = ranks.SplitHost(color);
  absl::StatusOr<std::unique_ptr<Communicator>> nccl = CreateNcclCommunicator(*members, kGpu);
  CHECK_OK(nccl.status());
  on_host = std::move(on_device);
  on_device = *std::move(nccl);
}

World WorldOf(RankWorld& ranks, int tensor, Transport transport) {
  World world = testing::WorldOf(ranks, kGpu, tensor);
  if (transport == Transport::kNccl) {
    UseNccl(ranks, world.mesh.tensor_rank, world.data_parallel, world.data_parallel_on_host);
    UseNccl(ranks, world.mesh.data_rank, world.tensor_parallel, world.tensor_parallel_on_host);
  }
  return world;
}

struct Mode {
  int data;
  int tensor;
  Accumulation accumulate;
  PublishMode publish;
  int64_t kv_heads = 1;  // for 2 heads
  Tie tie = Tie::kTied;

  int ranks() const { return data * tensor; }
};

class EmulatedTrainingTest : public ::testing::TestWithParam<Mode> {
 protected:
  EmulatedTrainingTest() {
    run_.options.train.global_batch = 4;
    run_.options.optim.accumulate = GetParam().accumulate;
    run_.options.optim.publish = GetParam().publish;
    run_.options.optim.weights = WeightStorage::kBf16Plus8;
    run_.options.model.tie = GetParam().tie;
    run_.options.model.kv_heads = GetParam().kv_heads;
    run_.options.parallel.tensor = GetParam().tensor;
    if (GetParam().tensor > 1) {
      run_.options.train.global_batch = 2;
      // Rows that do not divide among the ranks, in several chunks of the head.
      run_.options.model.sequence_length = 15;
      run_.options.model.head_chunk_rows = 6;
    }
  }

  Tensors Train(Transport transport, const simt::Options& options) {
    Tensors tensors;
    std::mutex mutex;
    RunRanks(GetParam().ranks(), [&](RankWorld& rank_world) {
      simt::DeviceState::Get().options() = options;
      World world = WorldOf(rank_world, GetParam().tensor, transport);
      const std::unique_ptr<Trainer> trainer =
          testing::NewTrainer(run_.options, world, rank_world.ledger());
      const DataLoader data = run_.OpenData();
      for (int64_t step = 0; step < kSteps; ++step) {
        const absl::StatusOr<StepResult> result = trainer->TrainStep(step, &data);
        ASSERT_TRUE(result.ok()) << result.status();
      }
      // All ranks must be at their ends before one waits for the others' turns below.
      trainer->instance().context().exchange().Synchronize();
      trainer->instance().context().compute().Synchronize();
      const std::lock_guard<std::mutex> lock(mutex);
      streams_ = simt::DeviceState::Get().Streams();
      testing::CopyShards(*trainer, tensors);
    });
    return tensors;
  }

  TinyRun run_{kSteps};
  std::vector<int64_t> streams_;  // of a rank that has trained, by number
};

INSTANTIATE_TEST_SUITE_P(
    Modes, EmulatedTrainingTest,
    ::testing::Values(Mode{2, 1, Accumulation::kMomentum, PublishMode::kWeights},
                      Mode{2, 1, Accumulation::kMomentum, PublishMode::kDirection},
                      Mode{2, 1, Accumulation::kGradient, PublishMode::kWeights},
                      Mode{2, 1, Accumulation::kGradient, PublishMode::kDirection},
                      // Both ranks share the key/value head.
                      Mode{1, 2, Accumulation::kMomentum, PublishMode::kWeights, /*kv_heads=*/1,
                           Tie::kNone},
                      Mode{2, 2, Accumulation::kGradient, PublishMode::kDirection, /*kv_heads=*/2}),
    [](const auto& test) {
      return absl::StrCat(EnumName(test.param.accumulate), "_", EnumName(test.param.publish), "_",
                          test.param.data, "x", test.param.tensor);
    });

// Work whose wait is missing is done too late in one run, and in time in the other.
TEST_P(EmulatedTrainingTest, OrderOfThreadsAndStreamsDoesNotChangeABit) {
  const Tensors expected = Train(Transport::kNccl, {});
  for (const auto& [execution, seed] :
       {std::pair(simt::Execution::kEarly, 0), std::pair(simt::Execution::kLate, 11),
        std::pair(simt::Execution::kLate, 12)}) {
    const simt::Options order{.execution = execution, .order_seed = static_cast<uint64_t>(seed)};
    EXPECT_THAT(Differing(Train(Transport::kNccl, order), expected), IsEmpty()) << seed;
  }
}

// A stream that does not wait for what it reads, or for readers of what it overwrites, is too early
// when all others are late.
TEST_P(EmulatedTrainingTest, AStreamThatIsAheadOfAllOthersDoesNotChangeABit) {
  const Tensors expected = Train(Transport::kNccl, {});
  const std::vector<int64_t> streams = streams_;
  ASSERT_GE(streams.size(), 2U);
  for (const int64_t stream : streams) {
    EXPECT_THAT(Differing(Train(Transport::kNccl, {.execution = simt::Execution::kOneAhead,
                                                   .order_seed = 0,
                                                   .stream_ahead = stream}),
                          expected),
                IsEmpty())
        << "stream " << stream;
  }
}

TEST_P(EmulatedTrainingTest, TheCommunicatorDoesNotChangeABit) {
  EXPECT_THAT(Differing(Train(Transport::kThreads, {}), Train(Transport::kNccl, {})), IsEmpty());
}

TEST_P(EmulatedTrainingTest, AStepAllocatesNothingAndWaitsForNothing) {
  run_.options.train.global_batch = 8;
  RunRanks(GetParam().ranks(), [&](RankWorld& rank_world) {
    World world = WorldOf(rank_world, GetParam().tensor, Transport::kNccl);
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
