#include "tests/equivalence/sample_sums.h"

#include <cmath>
#include <memory>

#include "runtime/base/dtype.h"
#include "runtime/comm/self_communicator.h"
#include "tests/support/random_tensor.h"
#include "tests/support/tensor_matchers.h"

namespace panthera::testing {
namespace {

class SampleSink final : public GradientSink {
 public:
  explicit SampleSink(const ParameterStore& params) : params_(params) {
    for (int i = 0; i < params.num_params(); ++i) {
      gradients_.push_back(HostTensor(params.spec({i}).shape, DType::kF32));
    }
  }

  void BeginSample() { written_.assign(gradients_.size(), false); }
  GradientTarget Target(ParamId id) override {
    const auto i = static_cast<size_t>(id.index);
    const bool first = !written_[i];
    written_[i] = true;
    return {gradients_[i], first ? Accumulate::kOverwrite : Accumulate::kAdd};
  }
  void GroupComplete(GroupId) override {}

  void AddTo(SampleSums& sums) const {
    for (size_t i = 0; i < gradients_.size(); ++i) {
      const std::string& name = params_.spec({static_cast<int>(i)}).name;
      const std::vector<double> gradient = ToDoubles(gradients_[i]);
      sums.gradient[name].resize(gradient.size());
      sums.magnitude[name].resize(gradient.size());
      for (size_t j = 0; j < gradient.size(); ++j) {
        sums.gradient[name][j] += gradient[j];
        sums.magnitude[name][j] += std::abs(gradient[j]);
      }
    }
  }

 private:
  const ParameterStore& params_;
  std::vector<HostTensor> gradients_;
  std::vector<bool> written_;
};

}  // namespace

SampleSums SumOverSamples(Trainer& trainer, const DataLoader& data, int64_t first,
                          int64_t samples) {
  ModelInstance& instance = trainer.instance();
  const int64_t tokens = instance.model().options().sequence_length;
  const HostTensor batch_tokens(Shape{1, tokens}, DType::kI32);
  const HostTensor batch_targets(Shape{1, tokens}, DType::kI32);
  const HostTensor losses(Shape{tokens}, DType::kF32);
  SampleSink sink(instance.params());
  SampleSums sums{.samples = samples, .gradient = {}, .magnitude = {}, .loss = 0};
  for (int64_t sample = first; sample < first + samples; ++sample) {
    CHECK_OK(data.Fill(sample, batch_tokens, batch_targets));
    sink.BeginSample();
    instance.model().LossAndGradient(instance.context(), instance.params(),
                                     {batch_tokens, batch_targets},
                                     1.0F / static_cast<float>(tokens), losses, sink);
    sink.AddTo(sums);
    for (const double loss : ToDoubles(losses)) {
      sums.loss += loss / static_cast<double>(tokens);
    }
  }
  return sums;
}

SampleSums SumOverFirstStep(const TinyRun& run) {
  World world;
  world.data_parallel = std::make_unique<SelfCommunicator>();
  world.tensor_parallel = std::make_unique<SelfCommunicator>();
  MemoryLedger ledger;
  const std::unique_ptr<Trainer> trainer = NewTrainer(run.options, world, ledger);
  return SumOverSamples(*trainer, run.OpenData(), 0, run.options.train.global_batch);
}

std::vector<double> StepBounds(const RunOptions& options, int64_t ranks,
                               const std::vector<double>& magnitude) {
  const int64_t samples = options.train.global_batch;
  const int64_t micro_steps = samples / (ranks * options.train.micro_batch);
  const bool folds = options.optim.accumulate == Accumulation::kMomentum;
  const bool travels_in_bf16 = ranks > 1 && ValueDType(options.optim.weights) == DType::kBF16;
  const bool bf16_momentum = options.optim.momentum == MomentumStorage::kBf16;
  const int64_t bf16_roundings =
      (travels_in_bf16 ? 1 : 0) + (bf16_momentum ? (folds ? micro_steps : 1) : 0);
  const double noise = static_cast<double>(samples + 4) * UnitRoundoff(DType::kF32) +
                       static_cast<double>(bf16_roundings) * UnitRoundoff(DType::kBF16);
  const double token_noise = folds ? 0
                                   : static_cast<double>(samples * options.model.sequence_length) *
                                         UnitRoundoff(DType::kF32) * MaxMagnitude(magnitude);
  std::vector<double> bounds;
  for (const double sum : magnitude) {
    bounds.push_back(1.1 * (noise * sum + token_noise));
  }
  return bounds;
}

}  // namespace panthera::testing
