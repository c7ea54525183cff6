#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "model/init.h"
#include "runtime/comm/self_communicator.h"
#include "tests/model/reference_transformer.h"
#include "tests/support/random_tensor.h"
#include "tests/support/tensor_matchers.h"

namespace panthera {
namespace {

using testing::FromDoubles;
using testing::HostTensor;
using testing::ToDoubles;
using testing::Zeros;

constexpr int64_t kSequences = 2;
constexpr int64_t kTokens = 6;

ModelOptions SmallOptions() {
  ModelOptions options;
  options.vocab_size = 11;
  options.width = 8;
  options.layers = 2;
  options.heads = 2;
  options.kv_heads = 1;
  options.head_width = 4;
  options.ffn_width = 12;
  options.sequence_length = kTokens;
  options.init_deviation = 0.3;
  return options;
}

// Gathers the gradient of every parameter, as a single rank without accumulation has it.
class GradientRecorder final : public GradientSink {
 public:
  explicit GradientRecorder(const ParameterStore& params) : params_(params) {
    for (int i = 0; i < params.num_params(); ++i) {
      gradients_.push_back(HostTensor(params.spec({i}).shape, DType::kF32));
      written_.push_back(false);
    }
  }

  GradientTarget Target(ParamId id) override {
    const auto i = static_cast<size_t>(id.index);
    const bool first = !written_[i];
    written_[i] = true;
    EXPECT_FALSE(IsComplete(params_.group_of(id))) << params_.spec(id).name;
    return {gradients_[i], first ? Accumulate::kOverwrite : Accumulate::kAdd};
  }
  void GroupComplete(GroupId group) override {
    EXPECT_FALSE(IsComplete(group));
    completed_.push_back(group);
  }

  bool IsComplete(GroupId group) const {
    return std::find(completed_.begin(), completed_.end(), group) != completed_.end();
  }
  const std::vector<GroupId>& completed() const { return completed_; }
  Tensor gradient(ParamId id) const { return gradients_[static_cast<size_t>(id.index)]; }

 private:
  const ParameterStore& params_;
  std::vector<HostTensor> gradients_;
  std::vector<bool> written_;
  std::vector<GroupId> completed_;
};

// A model with random parameters, gains away from one included.
struct Fixture {
  explicit Fixture(const ModelOptions& model_options, WeightStorage storage = WeightStorage::kFp32)
      : options(model_options),
        ctx({}, ledger, 1 << 22),
        model(model_options, self, params),
        tokens(testing::RandomTokens(kSequences * kTokens, options.vocab_size, 1)),
        targets(testing::RandomTokens(kSequences * kTokens, options.vocab_size, 2)) {
    params.Allocate({}, ledger, self, storage);
    model.Allocate({}, ledger, ValueDType(storage), kSequences * kTokens);
    InitializeShards(params, 7);
    for (int i = 0; i < params.num_params(); ++i) {
      if (params.spec({i}).kind == ParamKind::kGain) {
        const Tensor gain = params.value({i});
        for (int64_t c = 0; c < gain.elements(); ++c) {
          gain.data<float>()[c] = 1.0F + 0.1F * static_cast<float>((c + i) % 5);
        }
      }
    }
  }

  Batch batch() const {
    return {tokens.tensor().Reshape({kSequences, kTokens}),
            targets.tensor().Reshape({kSequences, kTokens})};
  }
  testing::reference::Parameters Parameters() const {
    testing::reference::Parameters values;
    for (int i = 0; i < params.num_params(); ++i) {
      values[params.spec({i}).name] = ToDoubles(params.value({i}));
    }
    return values;
  }

  ModelOptions options;
  MemoryLedger ledger;
  SelfCommunicator self;
  Context ctx;
  ParameterStore params;
  Transformer model;
  HostTensor tokens;
  HostTensor targets;
};

// Central differences of the reference loss, [all elements of one parameter].
std::vector<double> NumericalGradient(const Fixture& f, const std::string& name, double scale) {
  constexpr double kStep = 1e-5;
  testing::reference::Parameters values = f.Parameters();
  const std::vector<double> tokens = ToDoubles(f.tokens);
  const std::vector<double> targets = ToDoubles(f.targets);
  std::vector<double> gradient;
  for (double& value : values.at(name)) {
    const double at = value;
    value = at + kStep;
    const double above =
        testing::reference::TransformerLoss(f.options, values, tokens, targets, kSequences);
    value = at - kStep;
    const double below =
        testing::reference::TransformerLoss(f.options, values, tokens, targets, kSequences);
    value = at;
    gradient.push_back(scale * (above - below) / (2 * kStep));
  }
  return gradient;
}

struct Variant {
  const char* name;
  Tie tie;
  Recompute recompute;
  int64_t window;
  int64_t kv_heads;
  int64_t head_chunk_rows;
};

class TransformerTest : public ::testing::TestWithParam<Variant> {
 protected:
  static ModelOptions Options() {
    ModelOptions options = SmallOptions();
    options.tie = GetParam().tie;
    options.recompute = GetParam().recompute;
    options.attention_window = GetParam().window;
    options.kv_heads = GetParam().kv_heads;
    options.head_chunk_rows = GetParam().head_chunk_rows;
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(
    Variants, TransformerTest,
    ::testing::Values(Variant{"Untied", Tie::kNone, Recompute::kNone, 0, 1, 1024},
                      Variant{"Tied", Tie::kTied, Recompute::kNone, 0, 2, 5},
                      Variant{"SwappedHalves", Tie::kSwapHalves, Recompute::kBlock, 0, 1, 7},
                      Variant{"Windowed", Tie::kNone, Recompute::kBlock, 3, 2, 12}),
    [](const auto& test) { return test.param.name; });

// Some 30 operations stand between a parameter and the loss, each a sum of at most 12 terms rounded
// in the type's unit: the relative error of a gradient, in the norm, stays below their sum.
constexpr double kRoundings = 30 * 12;

TEST_P(TransformerTest, LossAndGradientMatchTheFormulasInDouble) {
  Fixture f(Options());
  GradientRecorder gradients(f.params);
  const HostTensor losses(Shape{kSequences * kTokens}, DType::kF32);
  constexpr double kScale = 1.0 / (kSequences * kTokens);

  f.model.LossAndGradient(f.ctx, f.params, f.batch(), static_cast<float>(kScale), losses,
                          gradients);

  const double bound = kRoundings * UnitRoundoff(DType::kF32);
  double sum = 0;
  for (const double loss : ToDoubles(losses)) {
    sum += loss;
  }
  const double expected = testing::reference::TransformerLoss(
      f.options, f.Parameters(), ToDoubles(f.tokens), ToDoubles(f.targets), kSequences);
  EXPECT_NEAR(sum, expected, bound * expected);
  for (int i = 0; i < f.params.num_params(); ++i) {
    const std::string& name = f.params.spec({i}).name;
    EXPECT_LT(testing::RelativeError(gradients.gradient({i}), NumericalGradient(f, name, kScale)),
              bound)
        << name;
  }
}

TEST_P(TransformerTest, EveryGroupIsCompletedOnceAndOnlyAfterItsLastContribution) {
  Fixture f(Options());
  GradientRecorder gradients(f.params);
  const HostTensor losses(Shape{kSequences * kTokens}, DType::kF32);

  f.model.LossAndGradient(f.ctx, f.params, f.batch(), 1, losses, gradients);

  EXPECT_EQ(gradients.completed().size(), static_cast<size_t>(f.params.num_groups()));
}

TEST_P(TransformerTest, LossWithoutGradientsIsTheSame) {
  Fixture f(Options());
  GradientRecorder gradients(f.params);
  const HostTensor trained(Shape{kSequences * kTokens}, DType::kF32);
  const HostTensor evaluated(Shape{kSequences * kTokens}, DType::kF32);
  const HostTensor correct(Shape{kSequences * kTokens}, DType::kI32);

  f.model.LossAndGradient(f.ctx, f.params, f.batch(), 1, trained, gradients);
  f.model.Loss(f.ctx, f.params, f.batch(), evaluated, correct);

  EXPECT_TRUE(testing::HasBitsOf(evaluated, trained));
}

TEST_P(TransformerTest, DecodingTokenByTokenGivesTheLogitsOfTheWholeText) {
  Fixture f(Options());
  KeyValueCache cache = f.model.MakeCache({}, f.ledger, DType::kF32, kTokens);
  const HostTensor logits(Shape{1, f.options.vocab_size}, DType::kF32);
  const std::vector<double> expected = testing::reference::TransformerLogits(
      f.options, f.Parameters(), ToDoubles(f.tokens.tensor().Slice(0, kTokens)), 1);

  // A prompt of three tokens at once, then one at a time.
  for (int64_t begin = 0, end = 3; end <= kTokens; begin = end, ++end) {
    f.model.Decode(f.ctx, f.params, f.tokens.tensor().Slice(begin, end), cache, logits);

    const auto row = expected.begin() + (end - 1) * f.options.vocab_size;
    const std::vector<double> last(row, row + f.options.vocab_size);
    EXPECT_LT(testing::RelativeError(logits, last), kRoundings * UnitRoundoff(DType::kF32))
        << "after " << end << " tokens";
  }
}

TEST_P(TransformerTest, PlanningTakesAsMuchMemoryAsComputing) {
  Fixture real(Options());
  MemoryLedger ledger;
  const std::unique_ptr<Context> meta = Context::Plan({}, ledger);
  SelfCommunicator self;
  ParameterStore params;
  Transformer model(Options(), self, params);
  params.Allocate(meta->device(), ledger, self, WeightStorage::kFp32);
  model.Allocate(meta->device(), ledger, DType::kF32, kSequences * kTokens);
  GradientRecorder gradients(real.params);
  const HostTensor losses(Shape{kSequences * kTokens}, DType::kF32);
  const Tensor meta_tokens = testing::MetaTensor({kSequences, kTokens}, DType::kI32);

  real.model.LossAndGradient(real.ctx, real.params, real.batch(), 1, losses, gradients);
  GradientRecorder meta_gradients(params);
  model.LossAndGradient(*meta, params, {meta_tokens, meta_tokens}, 1,
                        testing::MetaTensor({kSequences * kTokens}, DType::kF32), meta_gradients);

  EXPECT_EQ(meta->arena().peak_bytes(), real.ctx.arena().peak_bytes());
  EXPECT_EQ(ledger.total_bytes(), real.ledger.total_bytes() - real.ctx.arena().capacity_bytes());
}

TEST(TransformerEquivalenceTest, RecomputedBlocksGiveTheSameBits) {
  ModelOptions options = SmallOptions();
  Fixture kept(options);
  options.recompute = Recompute::kBlock;
  Fixture recomputed(options);
  GradientRecorder a(kept.params);
  GradientRecorder b(recomputed.params);
  const HostTensor losses(Shape{kSequences * kTokens}, DType::kF32);

  kept.model.LossAndGradient(kept.ctx, kept.params, kept.batch(), 1, losses, a);
  recomputed.model.LossAndGradient(recomputed.ctx, recomputed.params, recomputed.batch(), 1, losses,
                                   b);

  for (int i = 0; i < kept.params.num_params(); ++i) {
    EXPECT_TRUE(testing::HasBitsOf(a.gradient({i}), b.gradient({i}))) << kept.params.spec({i}).name;
  }
  EXPECT_LT(recomputed.ctx.arena().peak_bytes(), kept.ctx.arena().peak_bytes());
}

TEST(TransformerEquivalenceTest, Bf16StaysWithinItsRoundings) {
  const ModelOptions options = SmallOptions();
  Fixture f(options, WeightStorage::kBf16);
  GradientRecorder gradients(f.params);
  const HostTensor losses(Shape{kSequences * kTokens}, DType::kF32);

  f.model.LossAndGradient(f.ctx, f.params, f.batch(), 1, losses, gradients);

  // Activations are rounded about 30 times on their way, sums are in fp32.
  const double bound = 30 * UnitRoundoff(DType::kBF16);
  for (int i = 0; i < f.params.num_params(); ++i) {
    const std::string& name = f.params.spec({i}).name;
    EXPECT_LT(testing::RelativeError(gradients.gradient({i}), NumericalGradient(f, name, 1)), bound)
        << name;
  }
}

}  // namespace
}  // namespace panthera
