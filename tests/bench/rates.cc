#include "tests/bench/rates.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "runtime/math/gemm.h"
#include "tests/bench/memory_rate.h"
#include "tests/support/random_tensor.h"

namespace panthera::bench {
namespace {

using testing::HostTensor;
using testing::RandomTensor;

// Floating-point operations per second of a product as large as those of a feed-forward layer: the
// best of several.
double MeasureProductRate(DType dtype) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSize = 2048;
  constexpr int kRepetitions = 5;
  BenchContext context;
  const HostTensor a = RandomTensor({kSize, kSize}, dtype, 1);
  const HostTensor b = RandomTensor({kSize, kSize}, dtype, 2);
  const HostTensor c({kSize, kSize}, dtype);
  double best = 0;
  for (int i = 0; i < kRepetitions; ++i) {
    const Clock::time_point begin = Clock::now();
    Gemm(context, Transpose::kNo, a.tensor(), Transpose::kYes, b.tensor(), Accumulate::kOverwrite,
         c.tensor());
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::max(best, 2 * static_cast<double>(kSize * kSize * kSize) / seconds);
  }
  return best;
}

double MemoryRate() {
  static const double rate = MeasureMemoryRate();
  return rate;
}

double ProductRate(DType dtype) {
  static std::map<DType, double> rates;
  const auto [place, is_new] = rates.try_emplace(dtype, 0);
  if (is_new) {
    place->second = MeasureProductRate(dtype);
  }
  return place->second;
}

// `work` per iteration, as a part of `rate` per second. Google Benchmark divides by the seconds.
void ReportShare(benchmark::State& state, double work, double rate) {
  state.counters["share"] =
      benchmark::Counter(work / rate, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void ReportBytes(benchmark::State& state, int64_t bytes) {
  state.SetBytesProcessed(state.iterations() * bytes);
  ReportShare(state, static_cast<double>(bytes), MemoryRate());
}

void ReportFlops(benchmark::State& state, DType dtype, double flops) {
  state.counters["FLOPS"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate,
                                               benchmark::Counter::kIs1000);
  ReportShare(state, flops, ProductRate(dtype));
}

DType TypeOf(int64_t bf16) { return bf16 == 0 ? DType::kF32 : DType::kBF16; }

void ForBothTypes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("bf16")->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
}

}  // namespace panthera::bench
