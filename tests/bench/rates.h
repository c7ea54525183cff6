// What the benchmarks of ops are compared with, measured by the same process, and how they report.
#ifndef PANTHERA_TESTS_BENCH_RATES_H_
#define PANTHERA_TESTS_BENCH_RATES_H_

#include <cstdint>

#include <benchmark/benchmark.h>

#include "runtime/base/dtype.h"
#include "runtime/math/context.h"

namespace panthera::bench {

// A context of the CPU with its ledger and room for the scratch of any op here.
class BenchContext {
 public:
  BenchContext() : context_({DeviceKind::kCpu, 0}, ledger_, int64_t{1} << 30) {}
  operator Context&() { return context_; }  // NOLINT(google-explicit-constructor)
  MemoryLedger& ledger() { return ledger_; }
  Device device() const { return context_.device(); }

 private:
  MemoryLedger ledger_;
  Context context_;
};

// An op that must read and write `bytes` per iteration: bytes per second, and `share`, its part of
// MeasureMemoryRate. Above 1 the caches helped.
void ReportBytes(benchmark::State& state, int64_t bytes);

// An op of `flops` floating-point operations per iteration on operands of `dtype`: FLOPS, and
// `share`, its part of what the library reaches in a large product of that type.
void ReportFlops(benchmark::State& state, DType dtype, double flops);

// The argument "bf16": 0 or 1.
DType TypeOf(int64_t bf16);
void ForBothTypes(benchmark::internal::Benchmark* bench);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_RATES_H_
