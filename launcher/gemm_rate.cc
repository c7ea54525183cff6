#include "launcher/gemm_rate.h"

#include <algorithm>
#include <chrono>
#include <span>

#include "runtime/comm/reduce.h"
#include "runtime/math/gemm.h"

namespace panthera {
namespace {

constexpr int64_t kRows = 512;
constexpr int64_t kLargestWidth = 4096;
constexpr std::chrono::milliseconds kDuration{200};

void FillWithNoise(const Tensor& x) {
  // Products of zeros or of equal numbers can run faster than real ones.
  uint32_t state = 1;
  DispatchFloat(x.dtype(), [&]<typename T>() {
    for (int64_t i = 0; i < x.elements(); ++i) {
      state = state * 1664525U + 1013904223U;
      x.data<T>()[i] = static_cast<T>(static_cast<float>(state >> 8) * 0x1p-24F - 0.5F);
    }
  });
}

}  // namespace

double MeasureGemmRate(Context& ctx, const ModelOptions& options, DType dtype,
                       Communicator& data_parallel) {
  using Clock = std::chrono::steady_clock;
  const int64_t width = std::min(options.width, kLargestWidth);
  const int64_t ffn_width = std::min(options.ffn_width, kLargestWidth);
  const Arena::Scope scope(ctx.arena());
  const Tensor a = ctx.arena().Allocate({kRows, width}, dtype, "rate operand a");
  const Tensor b = ctx.arena().Allocate({ffn_width, width}, dtype, "rate operand b");
  const Tensor c = ctx.arena().Allocate({kRows, ffn_width}, dtype, "rate result");
  const auto multiply = [&] {
    Gemm(ctx, Transpose::kNo, a, Transpose::kYes, b, Accumulate::kOverwrite, c);
  };
  if (!ctx.device().is_meta()) {
    FillWithNoise(a);
    FillWithNoise(b);
  }
  multiply();
  // Returns when every rank has come here, so that all measure at the same time: ranks that share a
  // host share its memory and its clock.
  double arrived = 0;
  AllReduceSum(data_parallel, std::span(&arrived, 1), ctx.compute());
  double rate = 0;
  if (!ctx.device().is_meta()) {
    const double operations = 2.0 * static_cast<double>(kRows * width * ffn_width);
    const Clock::time_point end = Clock::now() + kDuration;
    for (Clock::time_point begin = Clock::now(); begin < end;) {
      multiply();
      const Clock::time_point now = Clock::now();
      const double seconds = std::chrono::duration<double>(now - begin).count();
      rate = std::max(rate, operations / std::max(seconds, 1e-9));
      begin = now;
    }
  }
  AllReduceSum(data_parallel, std::span(&rate, 1), ctx.compute());
  return rate;
}

}  // namespace panthera
