#include "tests/bench/memory_rate.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/device/buffer.h"

namespace panthera::bench {
namespace {

constexpr int64_t kElements = int64_t{16} << 20;  // 64 MiB each: twice a large cache
constexpr int kRepetitions = 10;

PANTHERA_SIMD void Triad(const float* b, const float* c, float s, int64_t count, float* a) {
  PANTHERA_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    a[i] = b[i] + s * c[i];
  }
}

}  // namespace

double MeasureMemoryRate() {
  using Clock = std::chrono::steady_clock;
  MemoryLedger ledger;
  const int64_t bytes = kElements * SizeOf(DType::kF32);
  const Buffer memory({DeviceKind::kCpu, 0}, ledger, MemoryCategory::kData, "triad", 3 * bytes);
  float* a = memory.View({kElements}, DType::kF32).data<float>();
  float* b = memory.View({kElements}, DType::kF32, bytes).data<float>();
  float* c = memory.View({kElements}, DType::kF32, 2 * bytes).data<float>();
  std::fill_n(b, 2 * kElements, 1.0F);
  double rate = 0;
  // The first repetition brings the pages of `a` into being.
  for (int i = 0; i <= kRepetitions; ++i) {
    const Clock::time_point begin = Clock::now();
    ParallelFor(kElements, 4096, [&](int64_t first, int64_t last) {
      Triad(b + first, c + first, 0.5F, last - first, a + first);
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    rate = std::max(rate, 3 * static_cast<double>(bytes) / std::max(seconds, 1e-9));
  }
  return rate;
}

}  // namespace panthera::bench
