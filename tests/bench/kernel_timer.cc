#include "tests/bench/kernel_timer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <vector>

#include "absl/functional/function_ref.h"

#include "runtime/device/stream.h"

namespace panthera::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Kind = KernelCall::Output::Kind;

constexpr int64_t kFewestSets = 2;
constexpr int64_t kMostSets = 8;
constexpr int64_t kMostCallsOfABatch = 1000;

// A call and the memory that it works on.
struct CallSet {
  explicit CallSet(Context& ctx) : operands(ctx) {}

  Operands operands;
  KernelCall call;
};

// Seconds that the stream is busy with what `enqueue` enqueues.
double SecondsOf(Context& ctx, absl::FunctionRef<void()> enqueue) {
  Event begin(ctx.device(), cuda::Timing::kMeasured);
  Event end(ctx.device(), cuda::Timing::kMeasured);
  ctx.compute().Synchronize();
  const Clock::time_point host_begin = Clock::now();
  begin.Record(ctx.compute());
  enqueue();
  end.Record(ctx.compute());
  ctx.compute().Synchronize();
  const double host_seconds = std::chrono::duration<double>(Clock::now() - host_begin).count();
  const double device_seconds = 1e-3 * static_cast<double>(end.MillisecondsSince(begin));
  return device_seconds > 0 ? device_seconds : host_seconds;
}

// At `share` of the way through the sorted values.
double Percentile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = place - std::floor(place);
  return sorted[below] * (1 - part) + sorted[above] * part;
}

// Runs the call once and looks at what it wrote.
bool WritesItsOutputs(Context& ctx, const KernelCall& call) {
  std::vector<uint64_t> before;
  for (const KernelCall::Output& output : call.outputs) {
    before.push_back(output.kind == Kind::kChanged ? Checksum(ctx, output.tensor) : 0);
  }
  call.run();
  ctx.compute().Synchronize();
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    const KernelCall::Output& output = call.outputs[i];
    if (output.kind == Kind::kChanged ? Checksum(ctx, output.tensor) == before[i]
                                      : !IsWritten(ctx, output.tensor)) {
      return false;
    }
  }
  return true;
}

}  // namespace

KernelTime MeasureKernel(Context& ctx, const KernelCase& kernel, const TimingPlan& plan) {
  std::deque<CallSet> sets;
  int64_t bytes = 0;
  const auto count = [&] { return static_cast<int64_t>(sets.size()); };
  while (count() < kFewestSets || (bytes < plan.rotation_bytes && count() < kMostSets)) {
    CallSet& set = sets.emplace_back(ctx);
    set.call = kernel.make(ctx, set.operands);
    bytes += set.operands.bytes();
  }

  KernelTime time;
  time.is_written = WritesItsOutputs(ctx, sets.front().call);
  int64_t next = 0;
  const auto enqueue = [&](int64_t calls) {
    for (int64_t i = 0; i < calls; ++i) {
      sets[static_cast<size_t>(next++ % count())].call.run();
    }
  };
  const double warm_up = SecondsOf(ctx, [&] { enqueue(plan.warm_ups); });
  const double once = warm_up / static_cast<double>(plan.warm_ups);
  const int64_t calls = std::clamp(static_cast<int64_t>(plan.batch_seconds / std::max(once, 1e-9)),
                                   int64_t{1}, kMostCallsOfABatch);
  std::vector<double> seconds;
  for (int64_t batch = 0; batch < plan.batches; ++batch) {
    seconds.push_back(SecondsOf(ctx, [&] { enqueue(calls); }) / static_cast<double>(calls));
  }
  std::sort(seconds.begin(), seconds.end());
  time.seconds = Percentile(seconds, 0.5);
  time.spread_seconds = Percentile(seconds, 0.9) - Percentile(seconds, 0.1);
  time.calls = calls * plan.batches;
  return time;
}

}  // namespace panthera::bench
