#include "launcher/gemm_rate.h"

#include <algorithm>
#include <chrono>
#include <span>

#include "absl/functional/function_ref.h"

#include "runtime/comm/reduce.h"
#include "runtime/device/stream.h"
#include "runtime/math/gemm.h"
#include "runtime/math/noise.h"

namespace panthera {
namespace {

constexpr int64_t kRows = 512;
// So many that a product has work for every part of a large GPU, several times over.
constexpr int64_t kRowsOnAGpu = 8192;
constexpr int64_t kLargestWidth = 4096;
constexpr std::chrono::milliseconds kDuration{200};

// The least time that `multiply`, which enqueues on the compute stream, took in a while.
double BestSeconds(Context& ctx, absl::FunctionRef<void()> multiply) {
  using Clock = std::chrono::steady_clock;
  Event begun(ctx.device(), cuda::Timing::kMeasured);
  Event done(ctx.device(), cuda::Timing::kMeasured);
  double best = std::chrono::duration<double>(Clock::duration::max()).count();
  const Clock::time_point end = Clock::now() + kDuration;
  for (Clock::time_point begin = Clock::now(); begin < end;) {
    begun.Record(ctx.compute());
    multiply();
    done.Record(ctx.compute());
    done.Synchronize();
    const Clock::time_point now = Clock::now();
    // A GPU's own clock knows nothing of how long the host takes to enqueue.
    const double seconds = ctx.device().is_cuda()
                               ? 1e-3 * static_cast<double>(done.MillisecondsSince(begun))
                               : std::chrono::duration<double>(now - begin).count();
    best = std::min(best, std::max(seconds, 1e-9));
    begin = now;
  }
  return best;
}

}  // namespace

double MeasureGemmRate(Context& ctx, const ModelOptions& options, DType dtype,
                       const MeshAxes& host_axes) {
  const bool computes = !ctx.device().is_meta();
  const int64_t rows = ctx.target().is_cuda() ? kRowsOnAGpu : kRows;
  const int64_t width = std::min(options.width, kLargestWidth);
  const int64_t ffn_width = std::min(options.ffn_width, kLargestWidth);
  const Arena::Scope scope(ctx.arena());
  const Tensor a = ctx.arena().Allocate({rows, width}, dtype, "rate operand a");
  const Tensor b = ctx.arena().Allocate({ffn_width, width}, dtype, "rate operand b");
  const Tensor c = ctx.arena().Allocate({rows, ffn_width}, dtype, "rate result");
  const auto multiply = [&] {
    Gemm(ctx, Transpose::kNo, a, Transpose::kYes, b, Accumulate::kOverwrite, c);
  };
  if (computes) {
    FillWithNoise(ctx.compute(), a);
    FillWithNoise(ctx.compute(), b);
  }
  multiply();
  ctx.compute().Synchronize();
  Stream host(computes ? Device{} : ctx.device());
  // Returns when every rank has come here, so that all measure at the same time: ranks that share a
  // host share its memory and its clock.
  double arrived = 0;
  AllReduceSum(host_axes, std::span(&arrived, 1), host);
  const double operations = 2.0 * static_cast<double>(rows * width * ffn_width);
  double rate = computes ? operations / BestSeconds(ctx, multiply) : 0;
  AllReduceSum(host_axes, std::span(&rate, 1), host);
  return rate;
}

}  // namespace panthera
