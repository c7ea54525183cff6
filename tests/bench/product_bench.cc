// The matrix products of a training step of the 124-million model. `share` is their part of what
// the library reaches in a large product.
#include <array>
#include <cstdint>

#include "runtime/math/gemm.h"
#include "tests/bench/rates.h"
#include "tests/support/random_tensor.h"

namespace panthera::bench {
namespace {

using testing::HostTensor;
using testing::RandomTensor;

constexpr int64_t kRows = 2048;
constexpr int64_t kVocabulary = 50304;
// The head works through its rows in chunks.
constexpr int64_t kHeadRows = 1024;

enum class ProductPass : uint8_t { kForward, kInputGradient, kWeightGradient };

// The product y = x W^T of a layer and those of its gradients; W [outputs, inputs].
void BM_Product(benchmark::State& state, ProductPass pass) {
  const int64_t rows = state.range(0) == kVocabulary ? kHeadRows : kRows;
  const int64_t outputs = state.range(0);
  const int64_t inputs = state.range(1);
  const DType dtype = TypeOf(state.range(2));
  BenchContext context;
  const HostTensor x = RandomTensor({rows, inputs}, dtype, 1);
  const HostTensor w = RandomTensor({outputs, inputs}, dtype, 2);
  const HostTensor y = RandomTensor({rows, outputs}, dtype, 3);
  const HostTensor dw({outputs, inputs}, DType::kF32);
  for (auto _ : state) {
    switch (pass) {
      case ProductPass::kForward:
        Gemm(context, Transpose::kNo, x.tensor(), Transpose::kYes, w.tensor(),
             Accumulate::kOverwrite, y.tensor());
        break;
      case ProductPass::kInputGradient:
        Gemm(context, Transpose::kNo, y.tensor(), Transpose::kNo, w.tensor(),
             Accumulate::kOverwrite, x.tensor());
        break;
      case ProductPass::kWeightGradient:
        Gemm(context, Transpose::kYes, y.tensor(), Transpose::kNo, x.tensor(),
             Accumulate::kOverwrite, dw.tensor());
        break;
    }
  }
  ReportFlops(state, dtype, 2 * static_cast<double>(rows) * static_cast<double>(inputs * outputs));
}

void ProductCases(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"outputs", "inputs", "bf16"});
  constexpr std::array<std::array<int64_t, 2>, 5> kShapes = {
      {{2304, 768}, {768, 768}, {4096, 768}, {768, 2048}, {kVocabulary, 768}}};
  for (const auto& [outputs, inputs] : kShapes) {
    for (const int64_t bf16 : {0, 1}) {
      bench->Args({outputs, inputs, bf16});
    }
  }
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_CAPTURE(BM_Product, forward, ProductPass::kForward)->Apply(ProductCases);
BENCHMARK_CAPTURE(BM_Product, input_gradient, ProductPass::kInputGradient)->Apply(ProductCases);
BENCHMARK_CAPTURE(BM_Product, weight_gradient, ProductPass::kWeightGradient)->Apply(ProductCases);

}  // namespace
}  // namespace panthera::bench
