// Promises that hold for every algorithm.
#include "optim/optimizer.h"

#include <omp.h>

#include <cstring>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/base/check.h"
#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"
#include "tests/optim/small_model.h"
#include "tests/support/rank_harness.h"

namespace panthera {
namespace {

using testing::Elements;
using testing::EmptyElements;
using testing::Noise;
using testing::RankWorld;
using testing::RunRanks;
using testing::Worker;

constexpr Device kMeta{DeviceKind::kMeta, 0};

// What all ranks together hold, logical element by logical element.
struct Result {
  Elements weights;
  Elements state1;
  Elements state2;

  friend bool operator==(const Result&, const Result&) = default;
};

// Three steps. Tiger folds two micro-steps of three contributions each.
void Train(Worker& worker, const OptimOptions& options) {
  worker.SetWeights([](ParamId id, int64_t i) { return 0.5F * Noise(77, id, i); });
  for (int step = 0; step < 3; ++step) {
    const auto seed = static_cast<uint64_t>(10 * step);
    StepInput input;
    input.step = step;
    input.learning_rate = 0.01;
    input.table_learning_rate = 0.003;
    input.rounding_key = 5;
    if (options.accumulate == Accumulation::kGradient) {
      worker.StepWithGradients(input, [&](ParamId id, int64_t i) { return Noise(seed, id, i); });
      continue;
    }
    for (const auto& [place, offset] : {std::pair{MicroStepPlace::kFirst, uint64_t{0}},
                                        std::pair{MicroStepPlace::kLater, uint64_t{3}}}) {
      worker.Fold(place, 1.0 / 6, 3, [&](ParamId id, int64_t i, int64_t rank) {
        return Noise(seed + offset + static_cast<uint64_t>(rank), id, i);
      });
    }
    worker.optimizer->Step(worker.ctx, input);
  }
}

Result TrainOnRanks(int ranks, const OptimOptions& options) {
  Result result;
  {
    ParameterStore store;
    testing::AddSmallModel(store);
    result = {EmptyElements(store), EmptyElements(store), EmptyElements(store)};
  }
  RunRanks(ranks, [&](RankWorld& world) {
    Worker worker(Device{}, world.ledger(), world.communicator(), options);
    Train(worker, options);
    // Ranks write different elements, but of replicated groups the same ones: one after the other.
    for (int rank = 0; rank < ranks; ++rank) {
      if (rank == world.rank()) {
        worker.CopyWeights(result.weights);
        // A parameter has one of the two.
        worker.CopyState("momentum", result.state1);
        worker.CopyState("moment1", result.state1);
        worker.CopyState("moment2", result.state2);
      }
      world.Meet();
    }
  });
  return result;
}

OptimOptions Options(Algorithm algorithm, WeightStorage weights, MomentumStorage momentum) {
  OptimOptions options = testing::OptionsFor(algorithm);
  options.weights = weights;
  options.momentum = momentum;
  return options;
}

using Combination = std::tuple<Algorithm, TableOptimizer, WeightStorage, MomentumStorage>;

class OptimizerTest : public ::testing::TestWithParam<Combination> {
 protected:
  static OptimOptions TestOptions() {
    const auto [algorithm, table, weights, momentum] = GetParam();
    OptimOptions options = Options(algorithm, weights, momentum);
    options.table.optimizer = table;
    CHECK_OK(options.Finish());
    return options;
  }
};

TEST_P(OptimizerTest, ShardingDoesNotChangeABit) {
  const Result expected = TrainOnRanks(1, TestOptions());
  for (const int ranks : {2, 3, 4, 7}) {
    const Result result = TrainOnRanks(ranks, TestOptions());
    EXPECT_TRUE(result.weights == expected.weights) << ranks << " ranks";
    EXPECT_TRUE(result.state1 == expected.state1) << ranks << " ranks";
    EXPECT_TRUE(result.state2 == expected.state2) << ranks << " ranks";
  }
}

TEST(OptimizerTableRmsTest, ShardingDoesNotChangeABit) {
  OptimOptions options = testing::OptionsFor(Algorithm::kTiger);
  options.table_rms = TableRms::kTable;
  const Result expected = TrainOnRanks(1, options);
  for (const int ranks : {2, 3, 7}) {
    EXPECT_TRUE(TrainOnRanks(ranks, options).weights == expected.weights) << ranks << " ranks";
  }
}

// Large enough for several tasks of ParallelFor.
void AddLargeModel(ParameterStore& store) {
  store.Add(store.AddGroup("embedding", GroupKind::kSharded),
            {"embed", {2000, 40}, ParamKind::kEmbedding});
  store.Add(store.AddGroup("block", GroupKind::kSharded), {"up", {301, 300}, ParamKind::kMatrix});
}

TEST_P(OptimizerTest, ThreadsDoNotChangeABit) {
  const int threads_before = omp_get_max_threads();
  Elements expected;
  for (const int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    MemoryLedger ledger;
    SelfCommunicator comm;
    Worker worker(Device{}, ledger, comm, TestOptions(), AddLargeModel);
    Train(worker, TestOptions());
    Elements weights = EmptyElements(worker.store);
    worker.CopyWeights(weights);
    if (threads == 1) {
      expected = weights;
    }
    EXPECT_TRUE(weights == expected) << threads << " threads";
  }
  omp_set_num_threads(threads_before);
}

TEST_P(OptimizerTest, MetaEntersTheBytesAndSendsTheTrafficOfARealStep) {
  const OptimOptions options = TestOptions();
  RunRanks(3, [&](RankWorld& world) {
    Worker real(Device{}, world.ledger(), world.communicator(), options);
    Train(real, options);
    MemoryLedger planned_ledger;
    PlanCommunicator plan(world.rank(), 3);
    Worker planned(kMeta, planned_ledger, plan, options);
    for (int step = 0; step < 3; ++step) {
      StepInput input;
      std::vector<Tensor> gradients;
      for (int g = 0; g < planned.store.num_groups(); ++g) {
        const int64_t shard = planned.store.layout(GroupId{g}).shard_elements;
        gradients.push_back(Tensor(nullptr, {shard}, DType::kF32, kMeta));
        if (options.accumulate == Accumulation::kMomentum) {
          planned.optimizer->FoldGradient(planned.ctx, planned.ctx.compute(), GroupId{g},
                                          Tensor(nullptr, {3, shard}, DType::kF32, kMeta), {});
        }
      }
      if (options.accumulate == Accumulation::kGradient) {
        input.gradients = gradients;
      }
      planned.optimizer->Step(planned.ctx, input);
    }
    for (const MemoryCategory category :
         {MemoryCategory::kWeights, MemoryCategory::kOptimizerState, MemoryCategory::kGradients,
          MemoryCategory::kCommunication}) {
      EXPECT_EQ(planned_ledger.bytes(category), world.ledger().bytes(category)) << Name(category);
    }
    EXPECT_EQ(planned.ctx.arena().peak_bytes(), real.ctx.arena().peak_bytes());
    EXPECT_EQ(plan.bytes_sent(), world.communicator().bytes_sent());
  });
}

TEST_P(OptimizerTest, StateHasTheShapeOfTheShards) {
  const OptimOptions options = TestOptions();
  RunRanks(2, [&](RankWorld& world) {
    Worker worker(Device{}, world.ledger(), world.communicator(), options);
    std::set<std::string> names;
    int tensors = 0;
    worker.optimizer->ForEachState([&](const char* name, GroupId group, Tensor shard) {
      names.insert(name);
      ++tensors;
      EXPECT_EQ(shard.shape(), Shape{worker.store.layout(group).shard_elements});
      const bool bf16 =
          options.momentum == MomentumStorage::kBf16 && std::strcmp(name, "moment2") != 0;
      EXPECT_EQ(shard.dtype(), bf16 ? DType::kBF16 : DType::kF32);
    });
    const bool adamw = options.algorithm == Algorithm::kAdamW;
    const bool split = options.table.optimizer == TableOptimizer::kAdamW;
    std::set<std::string> expected;
    if (adamw || split) {
      expected = {"moment1", "moment2"};
    }
    if (!adamw) {
      expected.insert("momentum");
    }
    EXPECT_EQ(names, expected);
    EXPECT_EQ(tensors, worker.store.num_groups() * (adamw ? 2 : 1) + (split ? 1 : 0));
  });
}

constexpr auto kStorages = [] {
  return ::testing::Values(WeightStorage::kFp32, WeightStorage::kBf16Plus8, WeightStorage::kBf16,
                           WeightStorage::kBf16PlusFp32);
};
constexpr auto kMomenta = [] {
  return ::testing::Values(MomentumStorage::kFp32, MomentumStorage::kBf16);
};

INSTANTIATE_TEST_SUITE_P(
    All, OptimizerTest,
    ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion, Algorithm::kAdamW),
                       ::testing::Values(TableOptimizer::kSame), kStorages(), kMomenta()));
INSTANTIATE_TEST_SUITE_P(WithATableOfItsOwn, OptimizerTest,
                         ::testing::Combine(::testing::Values(Algorithm::kTiger, Algorithm::kLion),
                                            ::testing::Values(TableOptimizer::kAdamW), kStorages(),
                                            kMomenta()));

TEST(OptimizerRoundingTest, AnotherKeyRoundsDifferently) {
  const OptimOptions options =
      Options(Algorithm::kLion, WeightStorage::kBf16, MomentumStorage::kFp32);
  Elements weights[2];
  for (const uint64_t key : {0U, 1U}) {
    MemoryLedger ledger;
    SelfCommunicator comm;
    Worker worker(Device{}, ledger, comm, options);
    worker.SetWeights([](ParamId, int64_t) { return 1.0F; });
    StepInput input;
    input.learning_rate = 1e-3;
    input.rounding_key = key;
    worker.StepWithGradients(input, [](ParamId, int64_t) { return 1.0F; });
    weights[key] = EmptyElements(worker.store);
    worker.CopyWeights(weights[key]);
  }
  EXPECT_NE(weights[0], weights[1]);
}

// Equal tensors under different names must not round alike.
TEST(OptimizerRoundingTest, ParametersDrawDifferentBits) {
  const OptimOptions options =
      Options(Algorithm::kLion, WeightStorage::kBf16, MomentumStorage::kFp32);
  MemoryLedger ledger;
  SelfCommunicator comm;
  Worker worker(Device{}, ledger, comm, options, [](ParameterStore& store) {
    const GroupId group = store.AddGroup("block", GroupKind::kSharded);
    store.Add(group, {"a", {32, 32}, ParamKind::kMatrix});
    store.Add(group, {"b", {32, 32}, ParamKind::kMatrix});
  });
  worker.SetWeights([](ParamId, int64_t) { return 1.0F; });
  StepInput input;
  input.learning_rate = 1e-3;
  worker.StepWithGradients(input, [](ParamId, int64_t) { return 1.0F; });
  Elements weights = EmptyElements(worker.store);
  worker.CopyWeights(weights);
  EXPECT_NE(weights[0], weights[1]);
}

constexpr int64_t kParameters = 256 * 1024;

struct Bytes {
  int64_t kept;  // weights and state
  int64_t gradients;
};

// Those of one rank for the only tensor of a store, which needs no padding.
Bytes BytesOf(const OptimOptions& options, ParamKind kind, int ranks) {
  MemoryLedger ledger;
  PlanCommunicator comm(0, ranks);
  Worker worker(kMeta, ledger, comm, options, [&](ParameterStore& store) {
    store.Add(store.AddGroup("group", GroupKind::kSharded), {"tensor", {1024, 256}, kind});
  });
  return {ledger.bytes(MemoryCategory::kWeights) + ledger.bytes(MemoryCategory::kOptimizerState),
          ledger.bytes(MemoryCategory::kGradients)};
}

TEST(OptimizerMemoryTest, BytesPerParameterAreTheDocumentedOnes) {
  struct Case {
    Algorithm algorithm;
    WeightStorage weights;
    MomentumStorage momentum;
    int64_t replicated;  // bytes per parameter that every rank holds
    int64_t sharded;     // bytes per parameter of the rank's shard
  };
  const Case cases[] = {
      {Algorithm::kTiger, WeightStorage::kFp32, MomentumStorage::kFp32, 4, 4},
      {Algorithm::kTiger, WeightStorage::kBf16Plus8, MomentumStorage::kBf16, 2, 1 + 2},
      {Algorithm::kTiger, WeightStorage::kBf16, MomentumStorage::kBf16, 2, 2},
      {Algorithm::kTiger, WeightStorage::kBf16PlusFp32, MomentumStorage::kFp32, 2, 4 + 4},
      {Algorithm::kLion, WeightStorage::kBf16Plus8, MomentumStorage::kBf16, 2, 1 + 2},
      {Algorithm::kAdamW, WeightStorage::kFp32, MomentumStorage::kFp32, 4, 4 + 4},
      {Algorithm::kAdamW, WeightStorage::kBf16PlusFp32, MomentumStorage::kBf16, 2, 4 + 2 + 4},
  };
  for (const int ranks : {1, 4}) {
    for (const Case& c : cases) {
      EXPECT_EQ(
          BytesOf(Options(c.algorithm, c.weights, c.momentum), ParamKind::kMatrix, ranks).kept,
          kParameters * c.replicated + kParameters / ranks * c.sharded);
    }
  }
}

// Two states of the table, the second in fp32, and where micro-steps fold a shard of its gradient.
TEST(OptimizerMemoryTest, ATableOfItsOwnTakesTheBytesOfAdamWAndNothingElseDoes) {
  OptimOptions options =
      Options(Algorithm::kTiger, WeightStorage::kBf16Plus8, MomentumStorage::kBf16);
  options.table.optimizer = TableOptimizer::kAdamW;
  for (const Accumulation accumulate : {Accumulation::kMomentum, Accumulation::kGradient}) {
    options.accumulate = accumulate;
    options.nonfinite = NonFinitePolicy::kAuto;
    ASSERT_TRUE(options.Finish().ok());
    for (const int ranks : {1, 4}) {
      const Bytes table = BytesOf(options, ParamKind::kEmbedding, ranks);
      EXPECT_EQ(table.kept, kParameters * 2 + kParameters / ranks * (1 + 2 + 4));
      EXPECT_EQ(table.gradients,
                accumulate == Accumulation::kMomentum ? kParameters / ranks * 4 : 0);
      const Bytes matrix = BytesOf(options, ParamKind::kMatrix, ranks);
      EXPECT_EQ(matrix.kept, kParameters * 2 + kParameters / ranks * (1 + 2));
      EXPECT_EQ(matrix.gradients, 0);
    }
  }
}

}  // namespace
}  // namespace panthera
