// Attention next to the same products without a softmax. `share` is the part of what the library
// reaches in a large product.
#include <array>
#include <cmath>
#include <cstdint>

#include "model/ops/attention.h"
#include "runtime/math/gemm.h"
#include "tests/bench/rates.h"
#include "tests/support/random_tensor.h"

namespace panthera::bench {
namespace {

using testing::HostTensor;
using testing::RandomTensor;

constexpr int64_t kBatch = 2;
constexpr int64_t kWidth = 768;

// Floating point operations of one product of all causal pairs: those below the diagonal count.
double CausalProductFlops(int64_t tokens, int64_t width) {
  return static_cast<double>(kBatch) * static_cast<double>(kWidth / width) *
         static_cast<double>(tokens) * static_cast<double>(tokens + 1) * static_cast<double>(width);
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
        lse({kBatch, kWidth / width, tokens}, DType::kF32) {}

  float scale() const { return 1 / std::sqrt(static_cast<float>(width)); }

  int64_t tokens;
  int64_t width;
  DType dtype;
  HostTensor q;
  HostTensor k;
  HostTensor v;
  HostTensor out;
  HostTensor lse;
  BenchContext context;
};

void BM_AttentionForward(benchmark::State& state) {
  AttentionCase x(state);
  const std::array bands = {AttentionBand{x.q.tensor(), x.k.tensor()}};
  for (auto _ : state) {
    AttentionForward(x.context, bands, x.v.tensor(), x.scale(), x.out.tensor(), x.lse);
  }
  ReportFlops(state, x.dtype, 2 * CausalProductFlops(x.tokens, x.width));
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
  ReportFlops(state, x.dtype, 5 * CausalProductFlops(x.tokens, x.width));
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
  ReportFlops(state, x.dtype, 2 * static_cast<double>(x.tokens * x.tokens * kWidth));
}

void AttentionCases(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "D", "bf16"})->ArgsProduct({{512, 1024, 2048}, {64, 128}, {0, 1}});
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(BM_AttentionForward)->Apply(AttentionCases);
BENCHMARK(BM_AttentionBackward)->Apply(AttentionCases);
BENCHMARK(BM_ScoreProduct)->Apply(AttentionCases);

}  // namespace
}  // namespace panthera::bench
