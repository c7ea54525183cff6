#include "launcher/memory_advice.h"

#include <algorithm>
#include <limits>
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

// Changes, each on top of the one before it.
using Chain = std::vector<Change>;

Change Extend(const Change& before, const std::string& description) {
  Change change = before;
  absl::StrAppend(&change.description, before.description.empty() ? "" : ", ", description);
  return change;
}

int64_t LargestProperDivisor(int64_t n) {
  for (int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) {
      return n / d;
    }
  }
  return 1;
}

// Smaller micro-batches, halved where that divides, then recomputation, then weights that travel
// whole, then saves that training waits for: time for memory.
Chain SlowerChanges(const Change& start, Device target) {
  Chain chain;
  Change last = start;
  const int64_t first_micro_batch = start.options.train.micro_batch;
  for (int64_t size = first_micro_batch; size > 1;) {
    size = LargestProperDivisor(size);
    last = Extend(start, absl::StrCat("train.micro_batch = ", size));
    last.options.train.micro_batch = size;
    chain.push_back(last);
  }
  if (last.options.model.recompute == Recompute::kNone) {
    last = Extend(last, "model.recompute = \"block\"");
    last.options.model.recompute = Recompute::kBlock;
    chain.push_back(last);
  }
  if (last.options.optim.publish == PublishMode::kDirection) {
    last = Extend(last, "optim.publish = \"weights\"");
    last.options.optim.publish = PublishMode::kWeights;
    chain.push_back(last);
  }
  // A GPU's copy lies in the memory of its host.
  if (target.is_cpu() && last.options.checkpoint.staging == CheckpointStaging::kCopy) {
    last = Extend(last, "checkpoint.staging = \"none\"");
    last.options.checkpoint.staging = CheckpointStaging::kNone;
    chain.push_back(last);
  }
  return chain;
}

// Storage with fewer bits.
Chain RoundingChanges(const Change& start) {
  Chain chain;
  Change last = start;
  const auto add = [&](const std::string& assignment) {
    last = Extend(last, assignment + " (changes rounding)");
    return &last.options.optim;
  };
  const OptimOptions& optim = start.options.optim;
  if (optim.algorithm == Algorithm::kTiger && optim.accumulate == Accumulation::kGradient &&
      optim.clip_norm == 0) {
    add("optim.accumulate = \"momentum\"")->accumulate = Accumulation::kMomentum;
    chain.push_back(last);
  }
  if (optim.weights == WeightStorage::kBf16PlusFp32 || optim.weights == WeightStorage::kFp32) {
    add("optim.weights = \"bf16+8\"")->weights = WeightStorage::kBf16Plus8;
    chain.push_back(last);
  }
  if (optim.momentum == MomentumStorage::kFp32) {
    add("optim.momentum = \"bf16\"")->momentum = MomentumStorage::kBf16;
    chain.push_back(last);
  }
  return chain;
}

constexpr int kMostRanks = 4096;

// More ranks among whom the global batch divides, at least twice as many each time.
Chain RankChanges(const Change& start) {
  Chain chain;
  int last_ranks = start.ranks;
  for (int ranks = 2 * start.ranks; ranks <= kMostRanks; ranks += start.ranks) {
    if (ranks < 2 * last_ranks) {
      continue;
    }
    const char* derive = start.options.parallel.data == 0 ? "" : ", parallel.data = 0";
    Change change = Extend(start, absl::StrCat(ranks, " ranks", derive));
    change.ranks = ranks;
    change.options.parallel.data = 0;
    RunOptions options = change.options;
    if (options.Finish(ranks).ok()) {
      chain.push_back(change);
      last_ranks = ranks;
    }
  }
  return chain;
}

// More ranks that share each layer, at least twice as many each time: of the ranks that there are,
// and beyond their number all.
Chain TensorChanges(const Change& start) {
  Chain chain;
  const auto first = static_cast<int>(start.options.parallel.tensor);
  const char* derive = start.options.parallel.data == 0 ? "" : ", parallel.data = 0";
  int last = first;
  for (int tensor = 2 * first; tensor <= kMostRanks; tensor += first) {
    if (tensor < 2 * last || (tensor < start.ranks && start.ranks % tensor != 0)) {
      continue;
    }
    const std::string more = tensor > start.ranks ? absl::StrCat(tensor, " ranks, ") : "";
    Change change = Extend(start, absl::StrCat(more, "parallel.tensor = ", tensor, derive));
    change.ranks = std::max(start.ranks, tensor);
    change.options.parallel.tensor = tensor;
    change.options.parallel.data = 0;
    RunOptions options = change.options;
    if (options.Finish(change.ranks).ok()) {
      chain.push_back(change);
      last = tensor;
    }
  }
  return chain;
}

class Advisor {
 public:
  Advisor(Device target, int64_t memory_bytes) : target_(target), memory_bytes_(memory_bytes) {}

  // Plans the changes up to the first that fits; whether there is one. Names only those that need
  // less than `below`.
  bool Try(const Chain& chain, int64_t below = std::numeric_limits<int64_t>::max()) {
    for (const Change& change : chain) {
      const std::optional<int64_t> bytes = PlannedBytes(change, target_);
      if (!bytes.has_value() || *bytes >= below) {
        continue;
      }
      const bool fits = *bytes <= memory_bytes_;
      absl::StrAppend(&lines_, absl::StrFormat("  %-6s  %-9s  with %s\n", fits ? "fits" : "no",
                                               FormatBytes(*bytes), change.description));
      if (fits) {
        return true;
      }
    }
    return false;
  }
  // The same for more ranks, and for more of them that share each layer where that takes less.
  bool TryRanks(const Change& start) {
    const bool more_fit = Try(RankChanges(start));
    const std::optional<int64_t> before = PlannedBytes(start, target_);
    const bool shared_fit =
        Try(TensorChanges(start), before.value_or(std::numeric_limits<int64_t>::max()));
    return more_fit || shared_fit;
  }
  std::string TakeLines() { return std::move(lines_); }

 private:
  Device target_;
  int64_t memory_bytes_;
  std::string lines_;
};

}  // namespace

std::string AdviseForMemory(const RunOptions& options, int ranks, Device target,
                            int64_t memory_bytes) {
  Advisor advisor(target, memory_bytes);
  const auto end_of = [](const Chain& chain, const Change& start) {
    return chain.empty() ? start : chain.back();
  };
  const Change start{"", options, ranks};
  const Chain slower = SlowerChanges(start, target);
  if (advisor.Try(slower)) {
    return advisor.TakeLines();
  }
  const Change slowest = end_of(slower, start);
  const Chain rounding = RoundingChanges(slowest);
  const bool rounded_fits = advisor.Try(rounding);
  const bool ranks_fit = advisor.TryRanks(slowest);
  if (rounded_fits || ranks_fit || (!rounding.empty() && advisor.TryRanks(rounding.back()))) {
    return advisor.TakeLines();
  }
  return advisor.TakeLines() +
         "  nothing of this fits: the model is too large for one rank of this memory\n";
}

}  // namespace panthera
