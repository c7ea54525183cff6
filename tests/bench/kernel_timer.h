#ifndef PANTHERA_TESTS_BENCH_KERNEL_TIMER_H_
#define PANTHERA_TESTS_BENCH_KERNEL_TIMER_H_

#include <cstdint>

#include "runtime/math/context.h"
#include "tests/bench/kernel_case.h"

namespace panthera::bench {

// How a kernel is measured: calls on several sets of operands in turn, first some that do not
// count, then batches of as many as take `batch_seconds`.
struct TimingPlan {
  // The sets together are at least so large, that is, several times a cache; never fewer than two
  // sets nor more than eight.
  int64_t rotation_bytes;
  int64_t warm_ups;
  int64_t batches;
  double batch_seconds;
};
// For a GPU whose second-level cache holds up to a hundred megabytes.
inline constexpr TimingPlan kGpuTiming{int64_t{512} << 20, 10, 15, 0.004};
// Proves that everything works, not how fast.
inline constexpr TimingPlan kDryTiming{1, 1, 2, 0};

struct KernelTime {
  double seconds = 0;         // of a call: the median over the batches
  double spread_seconds = 0;  // from the tenth to the ninetieth percentile
  int64_t calls = 0;          // that were measured
  bool is_written = false;    // every output was written, or has changed
};

// Measures a kernel by events around batches of launches, or by the host's clock where streams are
// immediate or time is emulated. Blocks the host.
KernelTime MeasureKernel(Context& ctx, const KernelCase& kernel, const TimingPlan& plan);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_KERNEL_TIMER_H_
