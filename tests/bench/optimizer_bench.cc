// Folding a gradient into Tiger's momentum and the update, for each storage of the weights.
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "optim/direction_codes.h"
#include "optim/optimizer.h"
#include "runtime/comm/self_communicator.h"
#include "tests/bench/rates.h"
#include "tests/support/random_tensor.h"

namespace panthera::bench {
namespace {

using testing::HostTensor;
using testing::RandomTensor;

// A row of weights larger than the caches, for one thread.
constexpr int64_t kRowElements = int64_t{8} << 20;

// One block of the model with one optimizer, of which a step is folded and applied.
class OptimizerCase {
 public:
  explicit OptimizerCase(const benchmark::State& state,
                         PublishMode publish = PublishMode::kWeights) {
    options_.weights = static_cast<WeightStorage>(state.range(0));
    options_.publish = publish;
    CHECK_OK(options_.Finish());
    const GroupId group = store_.AddGroup("block", GroupKind::kSharded);
    store_.Add(group, {.name = "matrix",
                       .shape = {9 * 1024, 768},
                       .kind = ParamKind::kMatrix,
                       .init_mean = 0,
                       .init_deviation = 0.02});
    store_.Allocate(context_.device(), context_.ledger(), self_, options_.weights,
                    options_.low_bits());
    optimizer_ = CreateOptimizer(options_, context_, store_, self_);
    gradient_.emplace(RandomTensor({1, elements()}, DType::kF32, 1));
  }

  int64_t elements() const { return store_.layout({0}).elements; }
  int64_t weight_bytes() const {
    return elements() * (options_.weights == WeightStorage::kFp32        ? 4
                         : options_.weights == WeightStorage::kBf16      ? 2
                         : options_.weights == WeightStorage::kBf16Plus8 ? 3
                                                                         : 6);
  }
  void Fold() {
    Context& ctx = context_;
    optimizer_->FoldGradient(ctx, ctx.compute(), {0}, gradient_->tensor(), {});
  }
  void Update() {
    StepInput input;
    input.learning_rate = 1e-3;
    optimizer_->Step(context_, input);
  }

 private:
  BenchContext context_;
  SelfCommunicator self_;
  ParameterStore store_;
  OptimOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<HostTensor> gradient_;
};

void BM_TigerFold(benchmark::State& state) {
  OptimizerCase x(state);
  for (auto _ : state) {
    x.Fold();
  }
  ReportBytes(state, 12 * x.elements());
}

void BM_TigerUpdate(benchmark::State& state) {
  OptimizerCase x(state);
  x.Fold();
  for (auto _ : state) {
    x.Update();
  }
  ReportBytes(state, 2 * x.weight_bytes() + 4 * x.elements());
}

// A step that is decided in a message and applied from it: a quarter of a byte each is written and
// read besides.
void BM_TigerDecideAndApply(benchmark::State& state) {
  OptimizerCase x(state, PublishMode::kDirection);
  x.Fold();
  for (auto _ : state) {
    x.Update();
  }
  ReportBytes(state, 2 * x.weight_bytes() + 4 * x.elements() + x.elements() / 2);
}

// The loops over codes alone.
void BM_PackDirections(benchmark::State& state) {
  const HostTensor directions(RandomTensor({kRowElements}, DType::kF32, 1));
  std::vector<uint8_t> codes(kRowElements / kCodesPerByte);
  for (auto _ : state) {
    PackDirections(directions.tensor().data<float>(), kRowElements, codes.data());
    benchmark::ClobberMemory();
  }
  ReportBytes(state, 4 * kRowElements + kRowElements / kCodesPerByte);
}

void BM_StepByCodes(benchmark::State& state) {
  const HostTensor theta(RandomTensor({kRowElements}, DType::kF32, 1));
  const std::vector<uint8_t> codes(kRowElements / kCodesPerByte, 0b10'01'00'11);
  for (auto _ : state) {
    StepByCodes(1e-6F, 0.1F, codes.data(), kRowElements, theta.tensor().data<float>());
    benchmark::ClobberMemory();
  }
  ReportBytes(state, 8 * kRowElements + kRowElements / kCodesPerByte);
}

// In the order of WeightStorage: fp32, bf16+8, bf16, bf16+fp32.
void StorageCases(benchmark::internal::Benchmark* bench) {
  bench->ArgName("storage")->DenseRange(0, 3)->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(BM_TigerFold)->Apply(StorageCases);
BENCHMARK(BM_TigerUpdate)->Apply(StorageCases);
BENCHMARK(BM_TigerDecideAndApply)
    ->ArgName("storage")
    ->DenseRange(0, 2)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BM_PackDirections)->UseRealTime();
BENCHMARK(BM_StepByCodes)->UseRealTime();

}  // namespace
}  // namespace panthera::bench
