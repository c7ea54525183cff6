// Speed of the ops on this machine. Attention next to the same products without a softmax, the
// others in bytes per second of what they must read and write.
#include <array>
#include <cmath>
#include <cstdint>

#include <benchmark/benchmark.h>

#include "model/ops/attention.h"
#include "model/ops/cross_entropy.h"
#include "model/ops/rmsnorm.h"
#include "model/ops/swiglu.h"
#include "runtime/math/gemm.h"
#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using testing::HostTensor;
using testing::RandomTensor;
using testing::RandomTokens;

constexpr int64_t kArenaBytes = int64_t{1} << 30;
constexpr int64_t kBatch = 2;
constexpr int64_t kWidth = 768;

DType TypeOf(int64_t index) { return index == 0 ? DType::kF32 : DType::kBF16; }

// Floating point operations of one product of all causal pairs: those below the diagonal count.
double CausalProductFlops(int64_t tokens, int64_t width) {
  return static_cast<double>(kBatch) * static_cast<double>(kWidth / width) *
         static_cast<double>(tokens) * static_cast<double>(tokens + 1) * static_cast<double>(width);
}

void SetFlops(benchmark::State& state, double flops) {
  state.counters["FLOPS"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate,
                                               benchmark::Counter::kIs1000);
}

struct AttentionCase {
  explicit AttentionCase(const benchmark::State& state)
      : tokens(state.range(0)),
        width(state.range(1)),
        dtype(TypeOf(state.range(2))),
        q(RandomTensor({kBatch, tokens, kWidth / width, width}, dtype, 1)),
        k(RandomTensor({kBatch, tokens, kWidth / width, width}, dtype, 2)),
        v(RandomTensor({kBatch, tokens, kWidth / width, width}, dtype, 3)),
        out({kBatch, tokens, kWidth / width, width}, dtype),
        lse({kBatch, kWidth / width, tokens}, DType::kF32),
        context({DeviceKind::kCpu, 0}, ledger, kArenaBytes) {}

  float scale() const { return 1 / std::sqrt(static_cast<float>(width)); }

  int64_t tokens;
  int64_t width;
  DType dtype;
  HostTensor q;
  HostTensor k;
  HostTensor v;
  HostTensor out;
  HostTensor lse;
  MemoryLedger ledger;
  Context context;
};

void BM_AttentionForward(benchmark::State& state) {
  AttentionCase x(state);
  const std::array bands = {AttentionBand{x.q.tensor(), x.k.tensor()}};
  for (auto _ : state) {
    AttentionForward(x.context, bands, x.v.tensor(), x.scale(), x.out.tensor(), x.lse);
  }
  SetFlops(state, 2 * CausalProductFlops(x.tokens, x.width));
}

void BM_AttentionBackward(benchmark::State& state) {
  AttentionCase x(state);
  const std::array bands = {AttentionBand{x.q.tensor(), x.k.tensor()}};
  AttentionForward(x.context, bands, x.v.tensor(), x.scale(), x.out.tensor(), x.lse);
  const HostTensor dout = RandomTensor(x.out.tensor().shape(), x.dtype, 4);
  const HostTensor dq(x.out.tensor().shape(), x.dtype);
  const HostTensor dk(x.out.tensor().shape(), x.dtype);
  const HostTensor dv(x.out.tensor().shape(), x.dtype);
  for (auto _ : state) {
    AttentionBackward(x.context, dout.tensor(), bands, x.v.tensor(), x.out.tensor(), x.lse,
                      x.scale(), dq.tensor(), dk.tensor(), dv.tensor());
  }
  SetFlops(state, 5 * CausalProductFlops(x.tokens, x.width));
}

// The score product of all heads and pairs, in one batched product: what the library reaches on
// such shapes.
void BM_ScoreProduct(benchmark::State& state) {
  AttentionCase x(state);
  const int64_t heads = kWidth / x.width;
  const HostTensor scores({heads, x.tokens, x.tokens}, DType::kF32);
  const auto operand = [&](const HostTensor& tensor) {
    return Matrix::Batch(tensor.tensor(), 0, heads, x.width, x.tokens, x.width, kWidth);
  };
  for (auto _ : state) {
    Gemm(x.context, Transpose::kNo, operand(x.q), Transpose::kYes, operand(x.k),
         Accumulate::kOverwrite,
         Matrix::Batch(scores.tensor(), 0, heads, x.tokens * x.tokens, x.tokens, x.tokens,
                       x.tokens));
  }
  SetFlops(state, 2 * static_cast<double>(x.tokens * x.tokens * kWidth));
}

// A product as large as those of the feed-forward layer: the most that the library reaches.
void BM_LargeProduct(benchmark::State& state) {
  const int64_t size = 1024;
  MemoryLedger ledger;
  Context context({DeviceKind::kCpu, 0}, ledger, kArenaBytes);
  const HostTensor a = RandomTensor({size, size}, TypeOf(state.range(0)), 1);
  const HostTensor b = RandomTensor({size, size}, TypeOf(state.range(0)), 2);
  const HostTensor c({size, size}, DType::kF32);
  for (auto _ : state) {
    Gemm(context, Transpose::kNo, a.tensor(), Transpose::kYes, b.tensor(), Accumulate::kOverwrite,
         c.tensor());
  }
  SetFlops(state, 2 * static_cast<double>(size * size * size));
}

void SetBytes(benchmark::State& state, int64_t bytes) {
  state.SetBytesProcessed(state.iterations() * bytes);
}

void BM_RmsNorm(benchmark::State& state) {
  MemoryLedger ledger;
  Context context({DeviceKind::kCpu, 0}, ledger, kArenaBytes);
  const HostTensor x = RandomTensor({4096, kWidth}, TypeOf(state.range(0)), 1);
  const HostTensor y(x.tensor().shape(), x.tensor().dtype());
  const HostTensor gain = RandomTensor({kWidth}, DType::kF32, 2);
  const HostTensor rstd({4096}, DType::kF32);
  for (auto _ : state) {
    RmsNorm(context, x, gain, 1e-5F, y, rstd);
  }
  SetBytes(state, 2 * x.tensor().bytes());
}

void BM_RmsNormBackward(benchmark::State& state) {
  MemoryLedger ledger;
  Context context({DeviceKind::kCpu, 0}, ledger, kArenaBytes);
  const HostTensor x = RandomTensor({4096, kWidth}, TypeOf(state.range(0)), 1);
  const HostTensor dy = RandomTensor({4096, kWidth}, TypeOf(state.range(0)), 3);
  const HostTensor dx = RandomTensor({4096, kWidth}, TypeOf(state.range(0)), 4);
  const HostTensor gain = RandomTensor({kWidth}, DType::kF32, 2);
  const HostTensor dgain({kWidth}, DType::kF32);
  const HostTensor rstd = testing::Zeros({4096}, DType::kF32);
  for (auto _ : state) {
    RmsNormBackward(context, dy, x, gain, rstd, dx.tensor(), dx,
                    {dgain.tensor(), Accumulate::kOverwrite});
  }
  SetBytes(state, 4 * x.tensor().bytes());
}

void BM_SwiGlu(benchmark::State& state) {
  MemoryLedger ledger;
  Context context({DeviceKind::kCpu, 0}, ledger, kArenaBytes);
  const HostTensor gate_up = RandomTensor({2048, 4096}, TypeOf(state.range(0)), 1);
  const HostTensor out({2048, 2048}, TypeOf(state.range(0)));
  for (auto _ : state) {
    SwiGlu(context, gate_up, out);
  }
  SetBytes(state, gate_up.tensor().bytes() + out.tensor().bytes());
}

void BM_SwiGluBackward(benchmark::State& state) {
  MemoryLedger ledger;
  Context context({DeviceKind::kCpu, 0}, ledger, kArenaBytes);
  const HostTensor gate_up = RandomTensor({2048, 4096}, TypeOf(state.range(0)), 1);
  const HostTensor dgate_up({2048, 4096}, TypeOf(state.range(0)));
  const HostTensor dout = RandomTensor({2048, 2048}, TypeOf(state.range(0)), 2);
  for (auto _ : state) {
    SwiGluBackward(context, dout, gate_up, dgate_up);
  }
  SetBytes(state, 2 * gate_up.tensor().bytes() + dout.tensor().bytes());
}

void BM_CrossEntropy(benchmark::State& state) {
  const int64_t vocab_size = 50257;
  const int64_t columns = 50304;
  MemoryLedger ledger;
  Context context({DeviceKind::kCpu, 0}, ledger, kArenaBytes);
  const HostTensor logits = RandomTensor({256, columns}, TypeOf(state.range(0)), 1);
  const HostTensor targets = RandomTokens(256, vocab_size, 2);
  const HostTensor losses({256}, DType::kF32);
  for (auto _ : state) {
    CrossEntropy(context, logits, vocab_size, targets, CrossEntropyOutput::kLossAndGradient, 1.0F,
                 losses);
  }
  SetBytes(state, 2 * logits.tensor().bytes());
}

void AttentionCases(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "D", "bf16"})->ArgsProduct({{512, 1024, 2048}, {64, 128}, {0, 1}});
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}

void TypeCases(benchmark::internal::Benchmark* bench) {
  bench->ArgName("bf16")->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(BM_AttentionForward)->Apply(AttentionCases);
BENCHMARK(BM_AttentionBackward)->Apply(AttentionCases);
BENCHMARK(BM_ScoreProduct)->Apply(AttentionCases);
BENCHMARK(BM_LargeProduct)->Apply(TypeCases);
BENCHMARK(BM_RmsNorm)->Apply(TypeCases);
BENCHMARK(BM_RmsNormBackward)->Apply(TypeCases);
BENCHMARK(BM_SwiGlu)->Apply(TypeCases);
BENCHMARK(BM_SwiGluBackward)->Apply(TypeCases);
BENCHMARK(BM_CrossEntropy)->Apply(TypeCases);

}  // namespace
}  // namespace panthera

BENCHMARK_MAIN();
