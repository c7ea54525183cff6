// For plans of configs/ that are compared with numbers worked out by hand.
#ifndef PANTHERA_TESTS_LAUNCHER_PLAN_BY_HAND_H_
#define PANTHERA_TESTS_LAUNCHER_PLAN_BY_HAND_H_

#include <cstdint>
#include <string>

#include "launcher/run_options.h"
#include "launcher/trainer.h"
#include "runtime/device/device.h"

namespace panthera::testing {

inline constexpr Device kCpu;
inline constexpr Device kCuda{DeviceKind::kCuda, 0};
// The workspace of a product on a GPU.
inline constexpr int64_t kWorkspace = 64 << 20;

// The shipped configuration `name`, finished for `ranks`.
RunOptions LoadShipped(const std::string& name, int ranks);

// Of the first rank.
StepPlan PlanFor(const RunOptions& options, int ranks, Device target);

struct ByHand {
  int64_t weights;
  int64_t state;
  int64_t gradients;
  int64_t communication;
  int64_t data;
  int64_t copy;  // CheckpointCopy
  AxisBytes sent;
};

// What checkpoints are written from: memory of the host, pinned for a GPU.
int64_t CheckpointCopy(const StepPlan& plan);

// Everything but the arena is as expected.
void ExpectOutsideOfTheArena(const StepPlan& plan, const ByHand& expected);

// The arena at its fullest without what a library takes for a product.
int64_t WithoutProductScratch(const StepPlan& plan);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_LAUNCHER_PLAN_BY_HAND_H_
