#include "optim/grad_sync.h"

#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"
#include "tests/optim/synced_worker.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::kBlock0;
using testing::kBlock1;
using testing::kTable;
using testing::kVectors;
using testing::Noise;
using testing::RankWorld;
using testing::RunRanks;
using testing::SmallInteger;
using testing::SyncedWorker;

constexpr Device kMeta{DeviceKind::kMeta, 0};

OptimOptions Options(Accumulation accumulate, WeightStorage weights = WeightStorage::kFp32) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.accumulate = accumulate;
  options.weights = weights;
  options.nonfinite = NonFinitePolicy::kAuto;
  CHECK_OK(options.Finish());
  return options;
}

constexpr int kParts = 12;  // micro-steps times ranks

// The integer gradient of part `n` of the global batch.
float Part(int64_t n, ParamId id, int64_t i) {
  return SmallInteger(static_cast<uint64_t>(n), id, i);
}

// The mean in double precision, and its norm.
struct Mean {
  Elements gradient;
  double norm = 0;
};
Mean ExpectedMean() {
  ParameterStore store;
  testing::AddSmallModel(store);
  Mean mean{EmptyElements(store), 0};
  for (int p = 0; p < store.num_params(); ++p) {
    std::vector<float>& gradient = mean.gradient[static_cast<size_t>(p)];
    for (size_t i = 0; i < gradient.size(); ++i) {
      float sum = 0;
      for (int n = 0; n < kParts; ++n) {
        sum += Part(n, ParamId{p}, static_cast<int64_t>(i));
      }
      // The sum is exact; one rounding of the weight, one of the product.
      gradient[i] = static_cast<float>(1.0 / kParts) * sum;
      mean.norm += static_cast<double>(gradient[i]) * static_cast<double>(gradient[i]);
    }
  }
  mean.norm = std::sqrt(mean.norm);
  return mean;
}

// The same global batch cut into micro-steps and ranks in every way gives the same bits, gradient
// and norm. Sums of integers are exact, and those of one rank, at most 96, fit into a bf16, so this
// holds for bf16 groups too.
class GradientModeTest : public ::testing::TestWithParam<WeightStorage> {};

TEST_P(GradientModeTest, GivesTheMeanOverMicroStepsAndRanks) {
  const Mean expected = ExpectedMean();
  std::optional<double> norm;
  for (const int ranks : {1, 2, 3, 4, 6}) {
    const int64_t micro_steps = kParts / ranks;
    std::vector<double> norms(static_cast<size_t>(ranks));
    Elements mean = expected.gradient;
    RunRanks(ranks, [&](RankWorld& world) {
      SyncedWorker worker(Device{}, world.ledger(), world.communicator(),
                          Options(Accumulation::kGradient, GetParam()));
      // Twice: a step must not see anything of the one before.
      for (int step = 0; step < 2; ++step) {
        for (int64_t micro = 0; micro < micro_steps; ++micro) {
          worker.Backward(micro, micro_steps, [&](ParamId id, int64_t i) {
            return Part(world.rank() * micro_steps + micro, id, i) + (step == 0 ? 1.0F : 0.0F);
          });
        }
      }
      norms[static_cast<size_t>(world.rank())] = worker.GradientNorm();
      for (int rank = 0; rank < ranks; ++rank) {
        if (rank == world.rank()) {
          worker.CopyGradients(mean);
        }
        world.Meet();
      }
      EXPECT_EQ(worker.sync.gradient_shards().size(), 4U);
    });
    EXPECT_TRUE(mean == expected.gradient) << ranks << " ranks";
    for (const double value : norms) {
      // A block's sum of squares has a relative error of up to 68 units, its root half of that.
      EXPECT_NEAR(value, expected.norm, 34 * 0x1p-24 * expected.norm);
      EXPECT_EQ(value, norm.value_or(value)) << "another norm on " << ranks << " ranks";
      norm = value;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Storages, GradientModeTest,
                         ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8));

TEST(GradSyncTest, Bf16GroupsTravelInBf16AndReplicatedOnesInFp32) {
  RunRanks(2, [](RankWorld& world) {
    SyncedWorker worker(Device{}, world.ledger(), world.communicator(),
                        Options(Accumulation::kGradient, WeightStorage::kBf16));
    const auto part = [](int rank, ParamId id, int64_t i) {
      return Noise(static_cast<uint64_t>(rank), id, i);
    };
    const int64_t before = world.communicator().bytes_sent();
    worker.sync.BeginMicroStep(0, 1);
    for (const GroupId group : {kBlock1, kVectors, kBlock0, kTable}) {
      worker.Contribute(group, [&](ParamId id, int64_t i) { return part(world.rank(), id, i); });
      worker.sync.GroupComplete(group);
    }
    const ParameterStore& store = worker.store;
    EXPECT_EQ(world.communicator().bytes_sent() - before,
              2 * (store.layout(kTable).shard_elements + store.layout(kBlock0).shard_elements +
                   store.layout(kBlock1).shard_elements) +
                  4 * store.layout(kVectors).elements);
    worker.sync.FinishMicroStep();
    Elements mean = EmptyElements(store);
    worker.CopyGradients(mean);
    for (const GroupId group : {kTable, kBlock0, kBlock1, kVectors}) {
      for (const ShardSegment& segment : store.segments(group)) {
        const auto at = static_cast<size_t>(segment.param.index);
        for (int64_t i = segment.param_begin; i < segment.param_begin + segment.elements; ++i) {
          const float a = part(0, segment.param, i);
          const float b = part(1, segment.param, i);
          const float sum =
              group == kVectors ? a + b : static_cast<float>(BF16(a)) + static_cast<float>(BF16(b));
          ASSERT_EQ(mean[at][static_cast<size_t>(i)], 0.5F * sum);
        }
      }
    }
  });
}

TEST(GradSyncTest, FirstContributionOverwritesAndLaterOnesAdd) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    SyncedWorker worker(Device{}, ledger, comm, Options(accumulate));
    const ParamId table = worker.store.Find("embed").value();
    for (int64_t micro = 0; micro < 2; ++micro) {
      worker.sync.BeginMicroStep(micro, 2);
      const bool kept = accumulate == Accumulation::kGradient && micro > 0;
      EXPECT_EQ(worker.sync.Target(table).accumulate,
                kept ? Accumulate::kAdd : Accumulate::kOverwrite);
      EXPECT_EQ(worker.sync.Target(table).accumulate, Accumulate::kAdd);
      for (const GroupId group : {kTable, kBlock0, kBlock1, kVectors}) {
        worker.sync.GroupComplete(group);
      }
      worker.sync.FinishMicroStep();
    }
  }
}

TEST(GradSyncTest, ParametersThatNobodyWroteHaveGradientZero) {
  RunRanks(2, [](RankWorld& world) {
    for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
      SyncedWorker worker(Device{}, world.ledger(), world.communicator(), Options(accumulate));
      worker.Backward(0, 1, [](ParamId, int64_t) { return 1.0F; });
      Elements first = EmptyElements(worker.store);
      worker.CopyState("momentum", first);
      worker.sync.BeginMicroStep(0, 1);
      for (const GroupId group : {kTable, kBlock0, kBlock1, kVectors}) {
        worker.sync.GroupComplete(group);
      }
      worker.sync.FinishMicroStep();
      EXPECT_EQ(worker.GradientNorm(), 0);
      if (accumulate == Accumulation::kGradient) {
        Elements mean = EmptyElements(worker.store);
        worker.CopyGradients(mean);
        EXPECT_EQ(mean, EmptyElements(worker.store));
        continue;
      }
      Elements second = EmptyElements(worker.store);
      worker.CopyState("momentum", second);
      for (size_t p = 0; p < first.size(); ++p) {
        for (size_t i = 0; i < first[p].size(); ++i) {
          ASSERT_EQ(second[p][i], 0.965F * first[p][i]);
        }
      }
    }
  });
}

// The same gradients in both modes, k micro-steps on each of 3 ranks. Each fold or addition rounds
// terms of at most 0.035 * 8 a few times; sums over ranks and micro-steps of integers are exact.
TEST(GradSyncTest, BothModesGiveTheSameMomentum) {
  constexpr int64_t kMicroSteps = 4;
  RunRanks(3, [](RankWorld& world) {
    Elements momentum[2];
    double norm[2] = {};
    for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
      const auto mode = static_cast<size_t>(accumulate);
      SyncedWorker worker(Device{}, world.ledger(), world.communicator(), Options(accumulate));
      for (int step = 0; step < 2; ++step) {
        for (int64_t micro = 0; micro < kMicroSteps; ++micro) {
          worker.Backward(micro, kMicroSteps, [&](ParamId id, int64_t i) {
            return Part(step * 100 + world.rank() * kMicroSteps + micro, id, i);
          });
        }
        StepInput input;
        input.step = step;
        input.learning_rate = 0.01;
        input.gradients = worker.sync.gradient_shards();
        EXPECT_EQ(input.gradients.empty(), accumulate == Accumulation::kMomentum);
        worker.optimizer->Step(worker.ctx, input);
      }
      momentum[mode] = EmptyElements(worker.store);
      worker.CopyState("momentum", momentum[mode]);
      norm[mode] = worker.GradientNorm();
    }
    const double bound = 2 * (kMicroSteps + 2) * 4 * 0x1p-24 * 0.035 * 8;
    for (size_t p = 0; p < momentum[0].size(); ++p) {
      for (size_t i = 0; i < momentum[0][p].size(); ++i) {
        ASSERT_NEAR(momentum[0][p][i], momentum[1][p][i], bound);
      }
    }
    // Independent micro-gradients: the root mean square of their norms is about sqrt(k) times the
    // norm of their mean.
    EXPECT_NEAR(norm[0] / norm[1], std::sqrt(kMicroSteps), 0.1);
  });
}

TEST(GradSyncTest, MomentumModeReportsTheNormOfTheMicroStepsMeans) {
  constexpr int64_t kMicroSteps = 3;
  for (const int ranks : {1, 2, 3}) {
    RunRanks(ranks, [&](RankWorld& world) {
      SyncedWorker worker(Device{}, world.ledger(), world.communicator(),
                          Options(Accumulation::kMomentum));
      const auto part = [&](int64_t micro, int rank, ParamId id, int64_t i) {
        return Part(micro * 10 + rank, id, i);
      };
      double squares = 0;
      for (int64_t micro = 0; micro < kMicroSteps; ++micro) {
        worker.Backward(micro, kMicroSteps,
                        [&](ParamId id, int64_t i) { return part(micro, world.rank(), id, i); });
        for (int p = 0; p < worker.store.num_params(); ++p) {
          for (int64_t i = 0; i < worker.store.spec(ParamId{p}).shape.elements(); ++i) {
            double mean = 0;
            for (int rank = 0; rank < ranks; ++rank) {
              mean += static_cast<double>(part(micro, rank, ParamId{p}, i)) / ranks;
            }
            squares += mean * mean / kMicroSteps;
          }
        }
      }
      EXPECT_NEAR(worker.GradientNorm(), std::sqrt(squares), 1e-12 * std::sqrt(squares))
          << "integers: block sums are exact";
    });
  }
}

TEST(GradSyncTest, OneRankStagesNothing) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  SyncedWorker worker(Device{}, ledger, comm,
                      Options(Accumulation::kMomentum, WeightStorage::kBf16));
  worker.Backward(0, 1, [](ParamId, int64_t) { return 1.0F; });
  EXPECT_EQ(comm.bytes_sent(), 0);
  for (const MemoryLedger::Entry& entry : ledger.entries()) {
    EXPECT_NE(entry.name, "received gradients");
    EXPECT_NE(entry.name, "gradients to send");
  }
}

TEST(GradSyncTest, MomentumModeHoldsTwoGroupsAndGradientModeAll) {
  MemoryLedger ledger;
  PlanCommunicator comm(0, 1);
  {
    SyncedWorker worker(kMeta, ledger, comm, Options(Accumulation::kMomentum));
    const ParameterStore& store = worker.store;
    // The two largest sharded groups, and the replicated one.
    EXPECT_EQ(ledger.bytes(MemoryCategory::kGradients),
              4 * (store.layout(kBlock0).elements + store.layout(kBlock1).elements +
                   store.layout(kVectors).elements));
  }
  SyncedWorker worker(kMeta, ledger, comm, Options(Accumulation::kGradient));
  const ParameterStore& store = worker.store;
  EXPECT_EQ(ledger.bytes(MemoryCategory::kGradients),
            4 * (store.layout(kTable).elements + store.layout(kBlock0).elements +
                 store.layout(kBlock1).elements + store.layout(kVectors).elements));
}

TEST(GradSyncTest, MetaEntersTheBytesAndSendsTheTrafficOfARealStep) {
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    for (const WeightStorage weights : {WeightStorage::kFp32, WeightStorage::kBf16Plus8}) {
      RunRanks(3, [&](RankWorld& world) {
        MemoryLedger planned_ledger;
        PlanCommunicator plan(world.rank(), 3);
        SyncedWorker real(Device{}, world.ledger(), world.communicator(),
                          Options(accumulate, weights));
        SyncedWorker planned(kMeta, planned_ledger, plan, Options(accumulate, weights));
        for (int64_t micro = 0; micro < 2; ++micro) {
          real.Backward(micro, 2, [](ParamId, int64_t) { return 1.0F; });
          planned.Backward(micro, 2, [](ParamId, int64_t) { return 1.0F; });
        }
        for (const MemoryCategory category :
             {MemoryCategory::kGradients, MemoryCategory::kCommunication}) {
          EXPECT_EQ(planned_ledger.bytes(category), world.ledger().bytes(category))
              << Name(category);
        }
        EXPECT_EQ(planned.GradientNorm(), 0);
        EXPECT_GT(real.GradientNorm(), 0);
        EXPECT_EQ(plan.bytes_sent(), world.communicator().bytes_sent());
      });
    }
  }
}

// Every tensor-parallel rank adds to the gradients of vectors, and each slice's is its rank's
// alone. Numbers of which every order of additions would give other bits.
TEST(GradSyncTest, VectorsAreSummedOverTensorAndThenDataRanksInOrder) {
  constexpr int kTensorRanks = 3;
  const auto part = [](int rank, ParamId id, int64_t i) {
    return Noise(static_cast<uint64_t>(rank), id, i);
  };
  for (const int data_ranks : {1, 2}) {
    RunRanks(data_ranks * kTensorRanks, [&](RankWorld& world) {
      testing::MeshWorld mesh(world, kTensorRanks);
      SyncedWorker worker(Device{}, world.ledger(), mesh.axes(), Options(Accumulation::kGradient));
      worker.sync.BeginMicroStep(0, 1);
      for (const GroupId group : {kBlock1, kVectors, kBlock0, kTable}) {
        worker.Contribute(group, [&](ParamId id, int64_t i) { return part(world.rank(), id, i); });
        worker.sync.GroupComplete(group);
      }
      worker.sync.FinishMicroStep();
      Elements mean = EmptyElements(worker.store);
      worker.CopyGradients(mean);
      for (const ParamId id : worker.store.layout(kVectors).params) {
        for (int64_t i = 0; i < worker.store.spec(id).shape.elements(); ++i) {
          float sum = 0;
          for (int data = 0; data < data_ranks; ++data) {
            float of_tensor_ranks = 0;
            for (int tensor = 0; tensor < kTensorRanks; ++tensor) {
              of_tensor_ranks += part(data * kTensorRanks + tensor, id, i);
            }
            sum += of_tensor_ranks;
          }
          const float weight = 1.0F / static_cast<float>(data_ranks);
          ASSERT_EQ(mean[static_cast<size_t>(id.index)][static_cast<size_t>(i)], weight * sum);
        }
      }
    });
  }
}

TEST(GradSyncTest, OnAMeshMetaEntersTheBytesAndSendsTheTrafficOfARealStep) {
  constexpr int kMicroSteps = 2;
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    RunRanks(6, [&](RankWorld& world) {
      testing::MeshWorld mesh(world, 3);
      MemoryLedger planned_ledger;
      PlanCommunicator plan_data(mesh.data().rank(), 2);
      PlanCommunicator plan_tensor(mesh.tensor().rank(), 3);
      SyncedWorker real(Device{}, world.ledger(), mesh.axes(), Options(accumulate));
      SyncedWorker planned(kMeta, planned_ledger, MeshAxes(plan_data, plan_tensor),
                           Options(accumulate));
      for (int64_t micro = 0; micro < kMicroSteps; ++micro) {
        real.Backward(micro, kMicroSteps, [](ParamId, int64_t) { return 1.0F; });
        planned.Backward(micro, kMicroSteps, [](ParamId, int64_t) { return 1.0F; });
      }
      EXPECT_EQ(planned.GradientNorm(), 0);
      EXPECT_GT(real.GradientNorm(), 0);
      for (const MemoryCategory category :
           {MemoryCategory::kGradients, MemoryCategory::kCommunication}) {
        EXPECT_EQ(planned_ledger.bytes(category), world.ledger().bytes(category)) << Name(category);
      }
      EXPECT_EQ(plan_data.bytes_sent(), mesh.data().bytes_sent());
      EXPECT_EQ(plan_tensor.bytes_sent(), mesh.tensor().bytes_sent());
      // To two peers: vectors whenever they are exchanged, a sum of squares of each of 7 tensors,
      // and with every fold two ranks' flags of each.
      const bool folds = accumulate == Accumulation::kMomentum;
      const int64_t exchanges = folds ? kMicroSteps : 1;
      const int64_t flags = folds ? kMicroSteps * 2 * 7 * 4 : 0;
      EXPECT_EQ(plan_tensor.bytes_sent(),
                2 * (exchanges * 4 * real.store.layout(kVectors).elements + 7 * 8 + flags));
    });
  }
}

TEST(GradSyncTest, ATensorAxisOfOneRankTakesNoMemoryAndNoCall) {
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    RunRanks(2, [&](RankWorld& world) {
      MemoryLedger ledger;
      SelfCommunicator self;
      const std::unique_ptr<Communicator> twin = world.Split(0);
      SyncedWorker one_axis(Device{}, ledger, *twin, Options(accumulate));
      SyncedWorker two_axes(Device{}, world.ledger(), MeshAxes(world.communicator(), self),
                            Options(accumulate));
      for (SyncedWorker* worker : {&one_axis, &two_axes}) {
        worker->Backward(0, 1, [](ParamId, int64_t) { return 1.0F; });
        EXPECT_GT(worker->GradientNorm(), 0);
      }
      EXPECT_EQ(world.communicator().bytes_sent(), twin->bytes_sent());
      EXPECT_EQ(world.ledger().entries().size(), ledger.entries().size());
      EXPECT_EQ(world.ledger().total_bytes(), ledger.total_bytes());
    });
  }
}

TEST(GradSyncDeathTest, NamesGroupsThatAreMisused) {
  MemoryLedger ledger;
  SelfCommunicator comm;
  SyncedWorker worker(Device{}, ledger, comm, Options(Accumulation::kMomentum));
  const auto zero = [](ParamId, int64_t) { return 0.0F; };
  worker.sync.BeginMicroStep(0, 1);
  EXPECT_DEATH(worker.sync.FinishMicroStep(), "embedding was never completed");
  worker.Contribute(kTable, zero);
  worker.Contribute(kBlock1, zero);
  EXPECT_DEATH(worker.Contribute(kBlock0, zero), "no gradient slot is free for group block 0");
  worker.sync.GroupComplete(kBlock1);
  EXPECT_DEATH(worker.sync.GroupComplete(kBlock1), "block 1 is complete already");
  EXPECT_DEATH(worker.Contribute(kBlock1, zero), "after its group was complete");
  EXPECT_DEATH(worker.sync.BeginMicroStep(2, 4), "micro-step 2 of 4 follows 0 of 1");
}

}  // namespace
}  // namespace panthera
