#include "launcher/memory_advice.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/trainer.h"
#include "launcher/world.h"

namespace panthera {
namespace {

struct Change {
  std::string description;
  RunOptions options;
  int ranks;
};

std::optional<int64_t> PlannedBytes(const Change& change, Device target) {
  RunOptions options = change.options;
  if (!options.Finish(change.ranks).ok()) {
    return std::nullopt;
  }
  absl::StatusOr<World> world = PlanWorld(options.parallel, change.ranks);
  if (!world.ok()) {
    return std::nullopt;
  }
  return Trainer::Plan(options, *world, target).total_bytes();
}

// Each change keeps those before it, so the list goes from mild to severe.
std::vector<Change> Changes(const RunOptions& options, int ranks) {
  std::vector<Change> changes;
  Change change{"", options, ranks};
  const auto add = [&](const std::string& description) {
    absl::StrAppend(&change.description, change.description.empty() ? "" : ", ", description);
    changes.push_back(change);
  };
  if (change.options.train.micro_batch > 1) {
    change.options.train.micro_batch = 1;
    add("train.micro_batch = 1");
  }
  if (change.options.model.recompute == Recompute::kNone) {
    change.options.model.recompute = Recompute::kBlock;
    add("model.recompute = \"block\"");
  }
  if (change.options.optim.algorithm == Algorithm::kTiger &&
      change.options.optim.accumulate == Accumulation::kGradient &&
      change.options.optim.clip_norm == 0) {
    change.options.optim.accumulate = Accumulation::kMomentum;
    add("optim.accumulate = \"momentum\"");
  }
  if (change.options.optim.weights == WeightStorage::kBf16PlusFp32) {
    change.options.optim.weights = WeightStorage::kBf16Plus8;
    add("optim.weights = \"bf16+8\"");
  }
  if (change.options.optim.momentum == MomentumStorage::kFp32) {
    change.options.optim.momentum = MomentumStorage::kBf16;
    add("optim.momentum = \"bf16\"");
  }
  constexpr int kMostRanks = 4096;
  const std::string before = change.description;
  for (int more = 2 * ranks; more <= kMostRanks; more *= 2) {
    if (options.train.global_batch % more == 0) {
      change.description = before;
      change.ranks = more;
      add(absl::StrCat(more, " ranks"));
    }
  }
  return changes;
}

}  // namespace

std::string AdviseForMemory(const RunOptions& options, int ranks, Device target,
                            int64_t memory_bytes) {
  std::string lines;
  for (const Change& change : Changes(options, ranks)) {
    const std::optional<int64_t> bytes = PlannedBytes(change, target);
    if (!bytes.has_value()) {
      continue;
    }
    const bool fits = *bytes <= memory_bytes;
    absl::StrAppend(&lines, absl::StrFormat("  %-6s  %-9s  with %s\n", fits ? "fits" : "no",
                                            FormatBytes(*bytes), change.description));
    if (fits) {
      return lines;
    }
  }
  absl::StrAppend(&lines,
                  "  nothing of this fits: the model is too large for one rank of this "
                  "memory\n");
  return lines;
}

}  // namespace panthera
