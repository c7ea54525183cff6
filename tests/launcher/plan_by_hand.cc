#include "tests/launcher/plan_by_hand.h"

#include <gtest/gtest.h>

#include "launcher/config_file.h"
#include "launcher/save_staging.h"
#include "launcher/world.h"
#include "runtime/base/check.h"

namespace panthera::testing {

RunOptions LoadShipped(const std::string& name, int ranks) {
  RunOptions options;
  CHECK_OK(LoadConfig(std::string(PANTHERA_CONFIGS) + "/" + name + ".toml", {}, options));
  CHECK_OK(options.Finish(ranks));
  return options;
}

StepPlan PlanFor(const RunOptions& options, int ranks, Device target) {
  absl::StatusOr<World> world = PlanWorld(options.parallel, ranks);
  CHECK_OK(world.status());
  return Trainer::Plan(options, *world, target);
}

int64_t CheckpointCopy(const StepPlan& plan) {
  int64_t sum = 0;
  for (const MemoryLedger::Entry& entry : plan.memory.entries()) {
    sum += entry.name == SaveStaging::kName ? entry.bytes : 0;
  }
  return sum;
}

void ExpectOutsideOfTheArena(const StepPlan& plan, const ByHand& expected) {
  EXPECT_EQ(plan.memory.bytes(MemoryCategory::kWeights), expected.weights);
  EXPECT_EQ(plan.memory.bytes(MemoryCategory::kOptimizerState), expected.state);
  EXPECT_EQ(plan.memory.bytes(MemoryCategory::kGradients), expected.gradients);
  EXPECT_EQ(plan.memory.bytes(MemoryCategory::kCommunication), expected.communication);
  EXPECT_EQ(plan.memory.bytes(MemoryCategory::kActivations), 0) << "all of them are in the arena";
  EXPECT_EQ(plan.memory.bytes(MemoryCategory::kData), expected.data);
  EXPECT_EQ(CheckpointCopy(plan), expected.copy);
  EXPECT_EQ(plan.sent.data, expected.sent.data);
  EXPECT_EQ(plan.sent.tensor, expected.sent.tensor);
}

int64_t WithoutProductScratch(const StepPlan& plan) {
  int64_t sum = 0;
  for (const Arena::Allocation& allocation : plan.arena_peak) {
    const std::string name = allocation.name;
    if (name != "product scratch" && name != "attention product scratch") {
      sum += allocation.bytes;
    }
  }
  return sum;
}

}  // namespace panthera::testing
