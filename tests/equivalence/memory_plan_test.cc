// The plan is the truth: what a step on kMeta asks for is what a real run requests.
#include <memory>
#include <string>

#include <gmock/gmock.h>

#include "launcher/config_file.h"
#include "tests/equivalence/tiny_run.h"

namespace panthera {
namespace {

using testing::RankWorld;
using testing::RunRanks;
using testing::TinyRun;

struct Variant {
  const char* name;
  int ranks;
  Algorithm algorithm;
  Accumulation accumulate;
  WeightStorage weights;
  Recompute recompute;
  Tie tie;
};

class MemoryPlanTest : public ::testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(
    Variants, MemoryPlanTest,
    ::testing::Values(Variant{"Fp32Alone", 1, Algorithm::kTiger, Accumulation::kMomentum,
                              WeightStorage::kFp32, Recompute::kNone, Tie::kNone},
                      Variant{"Bf16Plus8OnThreeRanks", 3, Algorithm::kTiger,
                              Accumulation::kMomentum, WeightStorage::kBf16Plus8, Recompute::kBlock,
                              Tie::kTied},
                      Variant{"AdamWOnTwoRanks", 2, Algorithm::kAdamW, Accumulation::kGradient,
                              WeightStorage::kBf16PlusFp32, Recompute::kNone, Tie::kSwapHalves}),
    [](const auto& test) { return test.param.name; });

TEST_P(MemoryPlanTest, EqualsEveryByteThatARealStepRequests) {
  const Variant& variant = GetParam();
  TinyRun run(2);
  run.options.optim.algorithm = variant.algorithm;
  run.options.optim.accumulate = variant.accumulate;
  run.options.optim.weights = variant.weights;
  run.options.model.recompute = variant.recompute;
  run.options.model.tie = variant.tie;

  RunRanks(variant.ranks, [&](RankWorld& rank_world) {
    RunOptions options = run.options;
    ASSERT_EQ(options.Finish(variant.ranks), absl::OkStatus());
    absl::StatusOr<World> plan_world = PlanWorld(options.parallel, variant.ranks);
    ASSERT_TRUE(plan_world.ok());
    const StepPlan plan = Trainer::Plan(options, *plan_world, {});

    World world = testing::WorldOf(rank_world);
    MemoryLedger& ledger = rank_world.ledger();
    const std::unique_ptr<Trainer> trainer = testing::NewTrainer(run.options, world, ledger);
    const DataLoader data = run.OpenData();
    const int64_t sent_before = world.data_parallel->bytes_sent();
    ASSERT_TRUE(trainer->TrainStep(0, &data).ok());

    EXPECT_EQ(ledger.total_bytes(), plan.total_bytes());
    for (int c = 0; c < kNumMemoryCategories; ++c) {
      const auto category = static_cast<MemoryCategory>(c);
      const int64_t arena = category == MemoryCategory::kActivations ? plan.arena_bytes : 0;
      EXPECT_EQ(ledger.bytes(category), plan.memory.bytes(category) + arena) << Name(category);
    }
    EXPECT_LE(trainer->instance().context().arena().peak_bytes(), plan.arena_bytes);
    EXPECT_EQ(world.data_parallel->bytes_sent() - sent_before, plan.bytes_sent);
  });
}

TEST(ShippedConfigPlanTest, EveryConfigRunsAStepOnMetaForItsRanks) {
  const std::pair<const char*, int> configs[] = {
      {"quickstart", 2},    {"toy_1m", 1},          {"llama_124m", 1},
      {"llama_1b_8gpu", 8}, {"llama_7b_64gpu", 64}, {"llama_70b_1024gpu", 1024}};
  for (const auto& [name, ranks] : configs) {
    RunOptions options;
    const std::string path = std::string(PANTHERA_CONFIGS) + "/" + name + ".toml";
    ASSERT_EQ(LoadConfig(path, {}, options), absl::OkStatus());
    ASSERT_EQ(options.Finish(ranks), absl::OkStatus());
    absl::StatusOr<World> world = PlanWorld(options.parallel, ranks);
    ASSERT_TRUE(world.ok()) << name << ": " << world.status();
    const Device target{ranks > 2 ? DeviceKind::kCuda : DeviceKind::kCpu, 0};
    EXPECT_GT(Trainer::Plan(options, *world, target).total_bytes(), 0) << name;
  }
}

}  // namespace
}  // namespace panthera
