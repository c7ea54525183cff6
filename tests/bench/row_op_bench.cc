// The ops that only move memory, with sizes of the 124-million model. `share` is the part of the
// memory's bandwidth.
#include <cstdint>

#include "model/ops/cross_entropy.h"
#include "model/ops/embedding.h"
#include "model/ops/residual.h"
#include "model/ops/rmsnorm.h"
#include "model/ops/rope.h"
#include "model/ops/swiglu.h"
#include "runtime/math/word_hash.h"
#include "tests/bench/rates.h"
#include "tests/support/random_tensor.h"

namespace panthera::bench {
namespace {

using testing::HostTensor;
using testing::RandomTensor;
using testing::RandomTokens;

constexpr int64_t kRows = 2048;
constexpr int64_t kWidth = 768;
constexpr int64_t kHeadWidth = 64;
constexpr int64_t kFfnWidth = 2048;
constexpr int64_t kVocabulary = 50304;

void BM_EmbeddingForward(benchmark::State& state) {
  BenchContext context;
  const HostTensor table = testing::Zeros({kVocabulary, kWidth}, TypeOf(state.range(0)));
  const HostTensor tokens = RandomTokens(kRows, kVocabulary, 1);
  const HostTensor out({kRows, kWidth}, TypeOf(state.range(0)));
  for (auto _ : state) {
    EmbeddingForward(context, tokens, table, out);
  }
  ReportBytes(state, 2 * out.tensor().bytes());
}

void BM_Residual(benchmark::State& state) {
  BenchContext context;
  const HostTensor a = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 1);
  const HostTensor b = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 2);
  const HostTensor out({kRows, kWidth}, TypeOf(state.range(0)));
  for (auto _ : state) {
    Add(context, a, b, out);
  }
  ReportBytes(state, 3 * out.tensor().bytes());
}

void BM_EmbeddingBackward(benchmark::State& state) {
  BenchContext context;
  const HostTensor tokens = RandomTokens(kRows, kVocabulary, 1);
  const HostTensor dout = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 2);
  const HostTensor dtable = testing::Zeros({kVocabulary, kWidth}, DType::kF32);
  for (auto _ : state) {
    EmbeddingBackward(context, tokens, dout, {dtable.tensor(), Accumulate::kAdd});
  }
  ReportBytes(state, dout.tensor().bytes() + 2 * kRows * kWidth * SizeOf(DType::kF32));
}

void BM_Rotate(benchmark::State& state) {
  constexpr int64_t kTokens = 512;
  BenchContext context;
  const HostTensor x = RandomTensor({kRows / kTokens, kTokens, kWidth / kHeadWidth, kHeadWidth},
                                    TypeOf(state.range(0)), 1);
  const HostTensor out(x.tensor().shape(), x.tensor().dtype());
  const HostTensor cos({kTokens, kHeadWidth / 2}, DType::kF32);
  const HostTensor sin({kTokens, kHeadWidth / 2}, DType::kF32);
  const RotaryTable table{cos.tensor(), sin.tensor()};
  FillRotaryTable(0, 1, 10000, table);
  for (auto _ : state) {
    Rotate(context, Rotation::kForward, x.tensor(), table, out.tensor());
  }
  ReportBytes(state, 2 * x.tensor().bytes());
}

void BM_RmsNorm(benchmark::State& state) {
  BenchContext context;
  const HostTensor x = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 1);
  const HostTensor y(x.tensor().shape(), x.tensor().dtype());
  const HostTensor gain = RandomTensor({kWidth}, DType::kF32, 2);
  const HostTensor rstd({kRows}, DType::kF32);
  for (auto _ : state) {
    RmsNorm(context, x, gain, 1e-5F, y, rstd);
  }
  ReportBytes(state, 2 * x.tensor().bytes());
}

void BM_RmsNormBackward(benchmark::State& state) {
  BenchContext context;
  const HostTensor x = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 1);
  const HostTensor dy = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 3);
  const HostTensor dx = RandomTensor({kRows, kWidth}, TypeOf(state.range(0)), 4);
  const HostTensor gain = RandomTensor({kWidth}, DType::kF32, 2);
  const HostTensor dgain({kWidth}, DType::kF32);
  const HostTensor rstd = testing::Zeros({kRows}, DType::kF32);
  for (auto _ : state) {
    RmsNormBackward(context, dy, x, gain, rstd, dx.tensor(), dx,
                    {dgain.tensor(), Accumulate::kOverwrite});
  }
  ReportBytes(state, 4 * x.tensor().bytes());
}

void BM_SwiGlu(benchmark::State& state) {
  BenchContext context;
  const HostTensor gate_up = RandomTensor({kRows, 2 * kFfnWidth}, TypeOf(state.range(0)), 1);
  const HostTensor out({kRows, kFfnWidth}, TypeOf(state.range(0)));
  for (auto _ : state) {
    SwiGlu(context, gate_up, out);
  }
  ReportBytes(state, gate_up.tensor().bytes() + out.tensor().bytes());
}

void BM_SwiGluBackward(benchmark::State& state) {
  BenchContext context;
  const HostTensor gate_up = RandomTensor({kRows, 2 * kFfnWidth}, TypeOf(state.range(0)), 1);
  const HostTensor dgate_up({kRows, 2 * kFfnWidth}, TypeOf(state.range(0)));
  const HostTensor dout = RandomTensor({kRows, kFfnWidth}, TypeOf(state.range(0)), 2);
  for (auto _ : state) {
    SwiGluBackward(context, dout, gate_up, dgate_up);
  }
  ReportBytes(state, 2 * gate_up.tensor().bytes() + dout.tensor().bytes());
}

void BM_CrossEntropy(benchmark::State& state) {
  const int64_t vocab_size = 50257;
  const int64_t columns = 50304;
  BenchContext context;
  const HostTensor logits = RandomTensor({256, columns}, TypeOf(state.range(0)), 1);
  const HostTensor targets = RandomTokens(256, vocab_size, 2);
  const HostTensor losses({256}, DType::kF32);
  for (auto _ : state) {
    CrossEntropy(context, logits, vocab_size, targets, CrossEntropyOutput::kLossAndGradient, 1.0F,
                 losses);
  }
  ReportBytes(state, 2 * logits.tensor().bytes());
}

// The hash of a table that no cache holds.
void BM_HashWords(benchmark::State& state) {
  BenchContext context;
  Context& ctx = context;
  const HostTensor x = testing::Zeros({kVocabulary, kWidth}, TypeOf(state.range(0)));
  const HostTensor sum({1}, DType::kI64);
  for (auto _ : state) {
    HashWords(ctx.compute(), x, 0, sum);
  }
  ReportBytes(state, x.tensor().bytes());
}

BENCHMARK(BM_EmbeddingForward)->Apply(ForBothTypes);
BENCHMARK(BM_EmbeddingBackward)->Apply(ForBothTypes);
BENCHMARK(BM_Residual)->Apply(ForBothTypes);
BENCHMARK(BM_Rotate)->Apply(ForBothTypes);
BENCHMARK(BM_RmsNorm)->Apply(ForBothTypes);
BENCHMARK(BM_RmsNormBackward)->Apply(ForBothTypes);
BENCHMARK(BM_SwiGlu)->Apply(ForBothTypes);
BENCHMARK(BM_SwiGluBackward)->Apply(ForBothTypes);
BENCHMARK(BM_CrossEntropy)->Apply(ForBothTypes);
BENCHMARK(BM_HashWords)->Apply(ForBothTypes);

}  // namespace
}  // namespace panthera::bench
