#include "optim/replica_check.h"

#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "tests/optim/small_training.h"
#include "tests/support/devices.h"

namespace panthera {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kBlock0;
using testing::kBlock1;
using testing::kTable;
using testing::kVectors;
using ::testing::Not;
using testing::RankWorld;
using testing::RunRanks;
using testing::SyncedWorker;

constexpr int kSteps = 2;
constexpr auto kOtherRanks = FlippedBits::Evidence::kOtherRanks;
constexpr auto kRecord = FlippedBits::Evidence::kRecord;

OptimOptions Bf16Plus8() {
  return testing::TrainingOptions(Algorithm::kTiger, Accumulation::kMomentum,
                                  WeightStorage::kBf16Plus8, MomentumStorage::kBf16);
}

// A rank that trains and checks.
class CheckedWorker {
 public:
  CheckedWorker(Device device, RankWorld& world, const OptimOptions& options, int tensor_size = 1)
      : mesh_(world, tensor_size),
        worker_(device, world.ledger(), mesh_.axes(), options),
        check_(worker_.ctx, worker_.store, *worker_.optimizer, mesh_.axes()) {
    worker_.SetWeights([](ParamId id, int64_t i) { return 0.5F * testing::Noise(77, id, i); });
    worker_.store.Publish(worker_.comm, worker_.ctx.compute(), worker_.ctx.exchange());
  }

  // An optimizer step with the same gradient on every rank.
  void Step(int step) {
    for (int64_t micro = 0; micro < testing::kMicroSteps; ++micro) {
      worker_.Backward(micro, testing::kMicroSteps, [&](ParamId id, int64_t i) {
        return testing::SmallInteger(static_cast<uint64_t>(10 * step + micro), id, i);
      });
    }
    worker_.Judge(1);
    StepInput input;
    input.step = step;
    input.learning_rate = 0.01;
    input.gradients = worker_.sync.gradient_shards();
    input.gradient_scale = worker_.sync.gradient_scale();
    input.left_out = worker_.sync.left_out();
    input.shrinks = worker_.sync.shrinks();
    worker_.optimizer->Step(worker_.ctx, input);
    worker_.optimizer->Publish(worker_.ctx);
    EXPECT_TRUE(worker_.sync.Report().ok());
  }

  ReplicaCheck& check() { return check_; }
  const ParameterStore& store() const { return worker_.store; }
  Tensor State(const std::string& name, GroupId wanted) const {
    Tensor state;
    worker_.optimizer->ForEachState([&](const char* its_name, GroupId group, Tensor shard) {
      if (name == its_name && group == wanted) {
        state = shard;
      }
    });
    return state;
  }

  // In memory of the device, behind the back of everybody.
  void FlipBit(const Tensor& x, int64_t byte, int bit) {
    Context& ctx = worker_.ctx;
    ctx.exchange().Synchronize();
    const Tensor place(x.bytes_data() + byte, {1}, DType::kU8, x.device());
    uint8_t value = 0;
    const Tensor host(&value, {1}, DType::kU8, Device{});
    Copy(ctx.compute(), place, host);
    ctx.compute().Synchronize();
    value = static_cast<uint8_t>(value ^ (1U << bit));
    Copy(ctx.compute(), host, place);
    ctx.compute().Synchronize();
  }

 private:
  testing::MeshWorld mesh_;
  SyncedWorker worker_;
  ReplicaCheck check_;
};

using Case = std::tuple<Algorithm, Accumulation, WeightStorage, MomentumStorage>;

class HealthyRunTest : public ::testing::TestWithParam<Case> {};

void ExpectNothingFound(const OptimOptions& options) {
  for (const Device device : testing::ComputeDevices()) {
    for (int ranks = 1; ranks <= (device.is_cpu() ? 3 : 2); ++ranks) {
      RunRanks(ranks, [&](RankWorld& world) {
        CheckedWorker worker(device, world, options);
        for (int step = 0; step < kSteps; ++step) {
          worker.Step(step);
          worker.check().Record();
          EXPECT_THAT(worker.check().Find(), IsEmpty()) << device << " step " << step;
          EXPECT_THAT(worker.check().Find(), IsEmpty()) << "looking changes nothing";
        }
      });
    }
  }
}

TEST_P(HealthyRunTest, NothingIsFoundInAnyStepOnAnyDeviceAndNumberOfRanks) {
  const auto [algorithm, accumulate, weights, momentum] = GetParam();
  OptimOptions options = testing::TrainingOptions(algorithm, accumulate, weights, momentum);
  ExpectNothingFound(options);
  // With directions low bits are replicas too.
  options.publish = PublishMode::kDirection;
  if (weights == WeightStorage::kBf16Plus8 && options.Finish().ok()) {
    ExpectNothingFound(options);
  }
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  const auto [algorithm, accumulate, weights, momentum] = info.param;
  std::string name = absl::StrCat(EnumName(algorithm), "_", EnumName(accumulate), "_",
                                  EnumName(weights), "_", EnumName(momentum));
  for (char& c : name) {
    c = c == '+' ? 'p' : c;
  }
  return name;
}

constexpr auto kStorages = [] {
  return ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16,
                           WeightStorage::kBf16PlusFp32);
};
constexpr auto kMomenta = [] {
  return ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16);
};

INSTANTIATE_TEST_SUITE_P(Folding, HealthyRunTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger),
                                            ::testing::Values(Accumulation::kMomentum), kStorages(),
                                            kMomenta()),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(
    Summing, HealthyRunTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                       ::testing::Values(Accumulation::kGradient), kStorages(), kMomenta()),
    CaseName);

class ReplicaCheckTest : public ::testing::TestWithParam<Device> {
 protected:
  // What every rank finds when `harm` is done to each after a step was recorded.
  static std::vector<FlippedBits> FoundAfter(
      int ranks, const OptimOptions& options,
      absl::FunctionRef<void(int rank, CheckedWorker& worker)> harm) {
    std::vector<FlippedBits> result;
    std::mutex mutex;
    RunRanks(ranks, [&](RankWorld& world) {
      CheckedWorker worker(GetParam(), world, options);
      worker.Step(0);
      worker.check().Record();
      EXPECT_THAT(worker.check().Find(), IsEmpty());
      harm(world.rank(), worker);
      const std::vector<FlippedBits> found = worker.check().Find();
      const std::string text =
          found.empty() ? "" : absl::StrCat(found.size(), Describe(worker.store(), found));
      EXPECT_THAT(world.host().AllGather(text), ::testing::Each(text)) << "every rank knows";
      const std::lock_guard<std::mutex> lock(mutex);
      result = found;
    });
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, ReplicaCheckTest, ::testing::ValuesIn(testing::ComputeDevices()),
                         testing::DeviceName);

// In the copy of what another rank owns.
void HarmReplica(CheckedWorker& worker, GroupId group, int owner, int bit) {
  const Tensor row = worker.store().group_values(group).Slice(owner, owner + 1);
  worker.FlipBit(row, row.bytes() / 2, bit);
}

TEST_P(ReplicaCheckTest, NamesTheRankWhoseReplicaDiffersFromTheMajority) {
  EXPECT_THAT(FoundAfter(3, Bf16Plus8(),
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 1) {
                             HarmReplica(worker, kBlock0, 2, 0);
                           }
                         }),
              ElementsAre(FlippedBits{kOtherRanks, kBlock0, "weights", {1}}));
}

// Tensor-parallel ranks have other slices of the matrices, and the same gains. Ranks of the mesh
// are named: of two data-parallel rows of three, the last of the second row is rank 5.
TEST_P(ReplicaCheckTest, ComparesGainsOfTensorParallelRanksAndNotTheirSlices) {
  for (const int data_size : {1, 2}) {
    const int harmed = 3 * data_size - 1;
    RunRanks(3 * data_size, [&](RankWorld& world) {
      CheckedWorker worker(GetParam(), world, Bf16Plus8(), /*tensor_size=*/3);
      worker.Step(0);
      worker.check().Record();
      EXPECT_THAT(worker.check().Find(), IsEmpty());
      if (world.rank() == harmed) {
        worker.FlipBit(worker.store().shard(kVectors).values, 5, 3);
      }
      worker.check().Record();
      const std::vector<FlippedBits> found = worker.check().Find();
      if (world.rank() / 3 == data_size - 1) {
        EXPECT_THAT(found,
                    ::testing::Contains(FlippedBits{kOtherRanks, kVectors, "weights", {harmed}}));
      } else if (world.rank() % 3 == 2) {
        EXPECT_THAT(found, ElementsAre(FlippedBits{kOtherRanks, kVectors, "weights", {2, harmed}}));
      } else {
        EXPECT_THAT(found, IsEmpty());
      }
    });
  }
}

TEST_P(ReplicaCheckTest, NamesAllRanksWhereThereIsNoMajority) {
  EXPECT_THAT(FoundAfter(2, Bf16Plus8(),
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 1) {
                             HarmReplica(worker, kTable, 0, 7);
                           }
                         }),
              ElementsAre(FlippedBits{kOtherRanks, kTable, "weights", {0, 1}}));
  EXPECT_THAT(FoundAfter(3, Bf16Plus8(),
                         [](int rank, CheckedWorker& worker) {
                           if (rank > 0) {
                             HarmReplica(worker, kBlock1, 0, rank);
                           }
                         }),
              ElementsAre(FlippedBits{kOtherRanks, kBlock1, "weights", {0, 1, 2}}));
}

TEST_P(ReplicaCheckTest, FindsWhatChangedInAnOwnersShardAgainstItsRecordAndAgainstTheOthers) {
  EXPECT_THAT(FoundAfter(3, Bf16Plus8(),
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 2) {
                             worker.FlipBit(worker.store().shard(kBlock1).values, 0, 3);
                           }
                         }),
              ElementsAre(FlippedBits{kOtherRanks, kBlock1, "weights", {2}},
                          FlippedBits{kRecord, kBlock1, "weights", {2}}));
  EXPECT_THAT(FoundAfter(1, Bf16Plus8(),
                         [](int /*rank*/, CheckedWorker& worker) {
                           worker.FlipBit(worker.store().shard(kVectors).values, 5, 3);
                         }),
              ElementsAre(FlippedBits{kRecord, kVectors, "weights", {0}}))
      << "one rank has no replica";
}

TEST_P(ReplicaCheckTest, FindsWhatChangedInLowBitsMasterWeightsAndStates) {
  EXPECT_THAT(FoundAfter(2, Bf16Plus8(),
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 1) {
                             const Tensor low_bits = *worker.store().shard(kBlock0).remainder;
                             worker.FlipBit(low_bits, low_bits.bytes() - 1, 0);
                           }
                           const Tensor momentum = worker.State("momentum", kVectors);
                           worker.FlipBit(momentum, momentum.bytes() - 1, 7);
                         }),
              ElementsAre(FlippedBits{kRecord, kBlock0, "low bits", {1}},
                          FlippedBits{kRecord, kVectors, "momentum", {0, 1}}));
  const OptimOptions adamw = testing::TrainingOptions(Algorithm::kAdamW, Accumulation::kGradient,
                                                      WeightStorage::kBf16PlusFp32);
  EXPECT_THAT(FoundAfter(3, adamw,
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 0) {
                             worker.FlipBit(*worker.store().shard(kTable).master, 2, 4);
                           } else {
                             worker.FlipBit(worker.State("moment2", kBlock0), 3, 1);
                           }
                         }),
              ElementsAre(FlippedBits{kRecord, kTable, "master weights", {0}},
                          FlippedBits{kRecord, kBlock0, "moment2", {1, 2}}));
  OptimOptions split = Bf16Plus8();
  split.table.optimizer = TableOptimizer::kAdamW;
  ASSERT_EQ(split.Finish(), absl::OkStatus());
  EXPECT_THAT(FoundAfter(2, split,
                         [](int rank, CheckedWorker& worker) {
                           worker.FlipBit(rank == 0 ? worker.State("moment2", kTable)
                                                    : worker.State("momentum", kBlock0),
                                          0, 1);
                         }),
              ElementsAre(FlippedBits{kRecord, kTable, "moment2", {0}},
                          FlippedBits{kRecord, kBlock0, "momentum", {1}}));
}

// With directions every rank has all low bits, and what once differs is never overwritten.
TEST_P(ReplicaCheckTest, FindsLowBitsThatDifferBetweenRanksAlsoStepsLater) {
  OptimOptions options = Bf16Plus8();
  options.publish = PublishMode::kDirection;
  EXPECT_THAT(FoundAfter(3, options,
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 1) {
                             const Tensor low_bits =
                                 *worker.store().group_weights(kBlock0).remainder;
                             worker.FlipBit(low_bits, 0, 5);
                           }
                         }),
              ElementsAre(FlippedBits{kOtherRanks, kBlock0, "low bits", {1}}));
  EXPECT_THAT(FoundAfter(3, options,
                         [](int rank, CheckedWorker& worker) {
                           if (rank == 2) {
                             worker.FlipBit(*worker.store().group_weights(kTable).remainder, 0, 7);
                           }
                           worker.Step(1);
                           worker.check().Record();
                         }),
              Contains(FlippedBits{kOtherRanks, kTable, "low bits", {2}}));
}

TEST_P(ReplicaCheckTest, ARecordIsThatOfTheLatestStep) {
  RunRanks(2, [](RankWorld& world) {
    CheckedWorker worker(GetParam(), world, Bf16Plus8());
    worker.Step(0);
    worker.check().Record();
    worker.Step(1);
    EXPECT_THAT(worker.check().Find(), Not(IsEmpty())) << "a step writes to every shard";
    worker.check().Record();
    EXPECT_THAT(worker.check().Find(), IsEmpty());
  });
}

TEST(ReplicaCheckTextTest, NamesGroupsTensorsAndRanksInOneLine) {
  ParameterStore store;
  testing::AddSmallModel(store);
  const FlippedBits replica{kOtherRanks, kBlock0, "weights", {2}};
  const FlippedBits replicas{kOtherRanks, kBlock1, "weights", {0, 1}};
  const FlippedBits changed{kRecord, kVectors, "momentum", {7}};
  EXPECT_EQ(Describe(store, {replica}),
            "the weights of group block 0 on rank 2 differ from those of the others");
  EXPECT_EQ(Describe(store, {replicas, changed}),
            "the weights of group block 1 on ranks 0, 1 differ between ranks; the momentum of "
            "group vectors on rank 7 changed after the update");
  EXPECT_THAT(Describe(store, {replica, replica, replicas, changed, changed}),
              AllOf(HasSubstr("block 1"), Not(HasSubstr("vectors")), HasSubstr("; and 2 more")));
}

TEST(ReplicaCheckDeathTest, FindNeedsARecord) {
  EXPECT_DEATH(RunRanks(1,
                        [](RankWorld& world) {
                          CheckedWorker worker(Device{}, world, Bf16Plus8());
                          (void)worker.check().Find();
                        }),
               "nothing was recorded");
}

}  // namespace
}  // namespace panthera
