#include "model/init.h"

#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/base/philox.h"
#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"
#include "runtime/params/name_hash.h"

namespace panthera {
namespace {

constexpr int64_t kSeed = 5;
// Rows that draws of four numbers do not divide, so that shards begin in the middle of one.
constexpr int64_t kRows = 2003;
constexpr int64_t kWidth = 3;
constexpr char kName[] = "model.embed_tokens.weight";
constexpr double kDeviation = 0.02;

// Normal number `index` of a parameter: the pair of words in its draw that gives it a radius and an
// angle, cosine for the even and sine for the odd numbers.
double ExpectedNormal(int64_t index) {
  const Philox draw = Philox4x32(HashName(kName, kSeed), static_cast<uint64_t>(index / 4), 0);
  const int64_t pair = index % 4 < 2 ? 0 : 2;
  const double radius =
      std::sqrt(-2 * std::log((static_cast<double>(draw.value[pair]) + 1) / 4294967296.0));
  const double angle = 2 * std::numbers::pi * (draw.value[pair + 1] / 4294967296.0);
  return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

void AddParameters(ParameterStore& store) {
  store.Add(store.AddGroup("embedding", GroupKind::kSharded), {.name = kName,
                                                               .shape = {kRows, kWidth},
                                                               .kind = ParamKind::kEmbedding,
                                                               .init_mean = 0,
                                                               .init_deviation = kDeviation});
  store.Add(store.AddGroup("gains", GroupKind::kReplicated), {.name = "gain",
                                                              .shape = {kWidth},
                                                              .kind = ParamKind::kGain,
                                                              .init_mean = 1,
                                                              .init_deviation = 0});
}

void ExpectValues(const ParameterStore& store) {
  const WeightShard shard = store.shard({0});
  for (const ShardSegment& segment : store.segments({0})) {
    std::vector<float> values(static_cast<size_t>(segment.elements));
    ReadWeights(shard, segment.shard_begin, segment.elements, values.data());
    for (int64_t i = 0; i < segment.elements; ++i) {
      const auto expected =
          static_cast<float>(kDeviation * ExpectedNormal(segment.param_begin + i));
      // Compilers may take sine and cosine from one function: a last digit may differ.
      EXPECT_FLOAT_EQ(values[static_cast<size_t>(i)], expected) << segment.param_begin + i;
    }
  }
}

TEST(InitializeShardsTest, EveryValueIsTheNormalNumberOfItsIndex) {
  MemoryLedger ledger;
  SelfCommunicator self;
  ParameterStore store;
  AddParameters(store);
  store.Allocate({DeviceKind::kCpu, 0}, ledger, self, WeightStorage::kFp32);
  InitializeShards(store, kSeed);
  ExpectValues(store);
  EXPECT_EQ(store.shard({1}).values.data<float>()[kWidth - 1], 1.0F);
}

TEST(InitializeShardsTest, AShardThatBeginsInTheMiddleOfADrawHasTheSameValues) {
  for (int rank = 0; rank < 3; ++rank) {
    MemoryLedger ledger;
    PlanCommunicator ranks(rank, 3);
    ParameterStore store;
    AddParameters(store);
    store.Allocate({DeviceKind::kCpu, 0}, ledger, ranks, WeightStorage::kFp32);
    InitializeShards(store, kSeed);
    ExpectValues(store);
  }
}

}  // namespace
}  // namespace panthera
