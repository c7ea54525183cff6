// What optimizers and the accumulation of gradients hold besides the weights.
#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "optim/grad_sync.h"
#include "runtime/comm/plan_communicator.h"
#include "tests/optim/small_model.h"

namespace panthera {
namespace {

constexpr int kGroups = 64;
constexpr int64_t kGroupElements = int64_t{256} * 1024;
constexpr int64_t kBufferBytes = 4 * kGroups * kGroupElements;  // an fp32 number per parameter

void AddEqualGroups(ParameterStore& store) {
  for (int i = 0; i < kGroups; ++i) {
    const std::string name = absl::StrCat("block", i);
    store.Add(store.AddGroup(name, GroupKind::kSharded), {name, {1024, 256}, ParamKind::kMatrix});
  }
}

struct ExtraBytes {
  int64_t state = 0;
  int64_t gradients = 0;
};

// Of one of `ranks` ranks, for a step of several micro-steps.
ExtraBytes ExtraBytesOf(Algorithm algorithm, int ranks) {
  MemoryLedger ledger;
  PlanCommunicator comm(0, ranks);
  const OptimOptions options = testing::OptionsFor(algorithm);
  testing::Worker worker({DeviceKind::kMeta}, ledger, comm, options, AddEqualGroups);
  const GradSync sync(options, worker.ctx, worker.store, comm, *worker.optimizer);
  return {ledger.bytes(MemoryCategory::kOptimizerState), ledger.bytes(MemoryCategory::kGradients)};
}

// In buffers as large as the parameters, with micro-steps accumulated: AdamW two moments and a
// gradient, Lion a momentum and a gradient, Tiger its momentum, into which gradients are folded a
// group at a time (two groups of 64 are under way).
TEST(ExtraBuffersTest, Row05AdamWNeedsThreeLionTwoAndTigerOne) {
  const ExtraBytes adamw = ExtraBytesOf(Algorithm::kAdamW, 1);
  EXPECT_EQ(adamw.state + adamw.gradients, 3 * kBufferBytes);
  const ExtraBytes lion = ExtraBytesOf(Algorithm::kLion, 1);
  EXPECT_EQ(lion.state + lion.gradients, 2 * kBufferBytes);
  const ExtraBytes tiger = ExtraBytesOf(Algorithm::kTiger, 1);
  EXPECT_EQ(tiger.state, kBufferBytes);
  EXPECT_EQ(tiger.gradients, kBufferBytes * 2 / kGroups);
}

TEST(ExtraBuffersTest, Row05StateOfParametersIsSharedByTheRanks) {
  for (const int ranks : {2, 4, 8}) {
    EXPECT_EQ(ExtraBytesOf(Algorithm::kTiger, ranks).state, kBufferBytes / ranks);
    EXPECT_EQ(ExtraBytesOf(Algorithm::kLion, ranks).state, kBufferBytes / ranks);
    EXPECT_EQ(ExtraBytesOf(Algorithm::kAdamW, ranks).state, 2 * kBufferBytes / ranks);
  }
}

}  // namespace
}  // namespace panthera
