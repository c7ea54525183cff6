// Ranks that share each layer compute what one rank with whole layers does, against the formulas in
// double: every variant of the model, sizes that do not divide, fewer key/value heads than ranks.
#include <algorithm>
#include <cmath>
#include <mutex>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "model/init.h"
#include "model/transformer.h"
#include "runtime/comm/self_communicator.h"
#include "tests/model/reference_transformer.h"
#include "tests/support/random_tensor.h"
#include "tests/support/rank_harness.h"
#include "tests/support/tensor_matchers.h"

namespace panthera {
namespace {

using testing::HostTensor;
using testing::RankWorld;
using testing::RunRanks;
using testing::ToDoubles;
using testing::reference::Parameters;

constexpr int64_t kSequences = 2;
constexpr int64_t kTokens = 5;
constexpr int64_t kRows = kSequences * kTokens;
constexpr double kScale = 1.0 / kRows;

// Some 30 operations stand between a parameter and the loss, each a sum of at most 36 terms rounded
// in the type's unit, over all ranks: the relative error of a gradient, in the norm, stays below
// their sum.
constexpr double kRoundings = 30 * 36;

// Gathers the gradients of this rank's slices.
class SliceRecorder final : public GradientSink {
 public:
  explicit SliceRecorder(const ParameterStore& params) {
    for (int i = 0; i < params.num_params(); ++i) {
      gradients_.push_back(HostTensor(params.spec({i}).shape, DType::kF32));
      written_.push_back(false);
    }
  }
  GradientTarget Target(ParamId id) override {
    const auto i = static_cast<size_t>(id.index);
    const bool first = !written_[i];
    written_[i] = true;
    return {gradients_[i], first ? Accumulate::kOverwrite : Accumulate::kAdd};
  }
  void GroupComplete(GroupId) override {}
  Tensor gradient(ParamId id) const { return gradients_[static_cast<size_t>(id.index)]; }

 private:
  std::vector<HostTensor> gradients_;
  std::vector<bool> written_;
};

// One rank's share of a model, with gains away from one.
struct SharedModel {
  SharedModel(const ModelOptions& model_options, RankWorld& world,
              WeightStorage storage = WeightStorage::kFp32)
      : options(model_options),
        ctx({}, ledger, 1 << 22),
        model(options, {self, world.communicator()}, params) {
    params.Allocate({}, ledger, self, storage);
    model.Allocate({}, ledger, params.value(model.embedding()).dtype(), kRows);
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

  ModelOptions options;
  MemoryLedger ledger;
  SelfCommunicator self;
  Context ctx;
  ParameterStore params;
  Transformer model;
};

HostTensor Tokens(const ModelOptions& options, uint64_t seed) {
  return testing::RandomTokens(kRows, options.vocab_size, seed);
}

Batch BatchOf(const HostTensor& tokens, const HostTensor& targets) {
  return {tokens.tensor().Reshape({kSequences, kTokens}),
          targets.tensor().Reshape({kSequences, kTokens})};
}

// Adds a slice's elements to the logical tensor, whose other elements others add.
void AddSlice(const ParamSpec& spec, const Tensor& slice, Parameters& whole) {
  std::vector<double>& tensor = whole[spec.name];
  tensor.resize(static_cast<size_t>(spec.logical_shape().elements()));
  const ElementMap map = spec.logical_elements();
  const std::vector<double> values = ToDoubles(slice);
  for (size_t i = 0; i < values.size(); ++i) {
    tensor[static_cast<size_t>(map(static_cast<int64_t>(i)))] += values[i];
  }
}

// What all ranks together hold. Gains are on every rank; each has the gradient of its rows.
struct Outcome {
  Parameters weights;
  Parameters gradients;
  std::vector<std::vector<double>> losses;     // of each rank
  std::vector<std::vector<double>> evaluated;  // the same without gradients
  std::vector<std::vector<double>> correct;
};

Outcome Compute(const ModelOptions& options, int ranks,
                WeightStorage storage = WeightStorage::kFp32) {
  Outcome outcome;
  std::mutex mutex;
  RunRanks(ranks, [&](RankWorld& world) {
    SharedModel shared(options, world, storage);
    SliceRecorder recorder(shared.params);
    const HostTensor tokens = Tokens(options, 1);
    const HostTensor targets = Tokens(options, 2);
    const HostTensor losses(Shape{kRows}, DType::kF32);
    const HostTensor evaluated(Shape{kRows}, DType::kF32);
    const HostTensor correct(Shape{kRows}, DType::kI32);
    const Batch batch = BatchOf(tokens, targets);
    shared.model.LossAndGradient(shared.ctx, shared.params, batch, static_cast<float>(kScale),
                                 losses, recorder);
    shared.model.Loss(shared.ctx, shared.params, batch, evaluated, correct);
    const std::lock_guard<std::mutex> lock(mutex);
    outcome.losses.push_back(ToDoubles(losses));
    outcome.evaluated.push_back(ToDoubles(evaluated));
    outcome.correct.push_back(ToDoubles(correct));
    for (int i = 0; i < shared.params.num_params(); ++i) {
      const ParamSpec& spec = shared.params.spec({i});
      AddSlice(spec, recorder.gradient({i}), outcome.gradients);
      if (spec.kind != ParamKind::kGain || world.rank() == 0) {
        AddSlice(spec, shared.params.value({i}), outcome.weights);
      }
    }
  });
  return outcome;
}

// Central differences of the reference loss.
std::vector<double> NumericalGradient(const ModelOptions& options, const Parameters& weights,
                                      const std::string& name) {
  constexpr double kStep = 1e-5;
  const std::vector<double> tokens = ToDoubles(Tokens(options, 1));
  const std::vector<double> targets = ToDoubles(Tokens(options, 2));
  Parameters values = weights;
  const auto loss = [&] {
    return testing::reference::TransformerLoss(options, values, tokens, targets, kSequences);
  };
  std::vector<double> gradient;
  for (double& value : values.at(name)) {
    const double at = value;
    value = at + kStep;
    const double above = loss();
    value = at - kStep;
    const double below = loss();
    value = at;
    gradient.push_back(kScale * (above - below) / (2 * kStep));
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

constexpr int kRanks[] = {1, 2, 3, 4, 5};

class TensorParallelTest : public ::testing::TestWithParam<Variant> {
 protected:
  static const Variant& variant() { return GetParam(); }
  static ModelOptions Options() {
    ModelOptions options;
    options.vocab_size = 11;
    options.width = 6;
    options.layers = 2;
    options.heads = 6;
    options.kv_heads = variant().kv_heads;
    options.head_width = 6;
    options.ffn_width = 13;
    options.sequence_length = kTokens;
    options.init_deviation = 0.3;
    options.tie = variant().tie;
    options.recompute = variant().recompute;
    options.attention_window = variant().window;
    options.head_chunk_rows = variant().head_chunk_rows;
    // Rows of zeros, if there were any, would become infinite.
    options.norm_epsilon = 0;
    return options;
  }
};

// Of 10 rows, 13 hidden features, 11 tokens and 6 heads of 6 features.
INSTANTIATE_TEST_SUITE_P(
    Variants, TensorParallelTest,
    ::testing::Values(Variant{"Untied", Tie::kNone, Recompute::kNone, 0, 6, 1024},
                      Variant{"TiedWithSharedKeys", Tie::kTied, Recompute::kNone, 0, 2, 5},
                      Variant{"SwappedHalvesWithOneKey", Tie::kSwapHalves, Recompute::kBlock, 0, 1,
                              7},
                      Variant{"Windowed", Tie::kNone, Recompute::kBlock, 3, 3, 3}),
    [](const auto& test) { return test.param.name; });

double RelativeDistance(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  CHECK_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

Parameters NumericalGradients(const ModelOptions& options, const Parameters& weights) {
  Parameters gradients;
  for (const auto& [name, values] : weights) {
    gradients[name] = NumericalGradient(options, weights, name);
  }
  return gradients;
}

TEST_P(TensorParallelTest, LossAndGradientMatchTheFormulasInDouble) {
  const ModelOptions options = Options();
  const Parameters weights = Compute(options, 1).weights;
  const Parameters numerical = NumericalGradients(options, weights);
  const double expected = testing::reference::TransformerLoss(
      options, weights, ToDoubles(Tokens(options, 1)), ToDoubles(Tokens(options, 2)), kSequences);
  const double bound = kRoundings * UnitRoundoff(DType::kF32);
  for (const int ranks : kRanks) {
    SCOPED_TRACE(ranks);
    const Outcome outcome = Compute(options, ranks);
    EXPECT_EQ(outcome.weights, weights) << "initial weights are those of one rank";
    double sum = 0;
    for (const double loss : outcome.losses[0]) {
      sum += loss;
    }
    EXPECT_NEAR(sum, expected, bound * expected);
    for (const auto& [name, gradient] : outcome.gradients) {
      EXPECT_LT(RelativeDistance(gradient, numerical.at(name)), bound) << name;
    }
  }
}

TEST_P(TensorParallelTest, EveryRankHasTheSameLossesAndTheHitsOfTheLargestLogits) {
  const ModelOptions options = Options();
  for (const int ranks : kRanks) {
    SCOPED_TRACE(ranks);
    const Outcome outcome = Compute(options, ranks);
    for (size_t rank = 0; rank < outcome.losses.size(); ++rank) {
      EXPECT_EQ(outcome.losses[rank], outcome.losses[0]);
      EXPECT_EQ(outcome.evaluated[rank], outcome.losses[0]);
      EXPECT_EQ(outcome.correct[rank], outcome.correct[0]);
    }
    const std::vector<double> logits = testing::reference::TransformerLogits(
        options, outcome.weights, ToDoubles(Tokens(options, 1)), kSequences);
    const std::vector<double> targets = ToDoubles(Tokens(options, 2));
    for (size_t row = 0; row < kRows; ++row) {
      const auto first = logits.begin() + static_cast<int64_t>(row) * options.vocab_size;
      const auto largest = std::max_element(first, first + options.vocab_size);
      const bool hit = largest - first == static_cast<int64_t>(targets[row]);
      EXPECT_EQ(outcome.correct[0][row], hit ? 1 : 0) << row;
    }
  }
}

TEST_P(TensorParallelTest, DecodingTokenByTokenGivesTheLogitsOfTheWholeText) {
  const ModelOptions options = Options();
  const Parameters weights = Compute(options, 1).weights;
  const HostTensor tokens = Tokens(options, 1);
  const std::vector<double> expected = testing::reference::TransformerLogits(
      options, weights, ToDoubles(tokens.tensor().Slice(0, kTokens)), 1);

  const auto decode = [&](RankWorld& world) {
    SharedModel shared(options, world);
    KeyValueCache cache = shared.model.MakeCache({}, shared.ledger, DType::kF32, kTokens);
    const HostTensor logits(Shape{1, options.vocab_size}, DType::kF32);
    // A prompt of three tokens at once, then one at a time.
    for (int64_t begin = 0, end = 3; end <= kTokens; begin = end, ++end) {
      shared.model.Decode(shared.ctx, shared.params, tokens.tensor().Slice(begin, end), cache,
                          logits);
      const auto row = expected.begin() + (end - 1) * options.vocab_size;
      const std::vector<double> last(row, row + options.vocab_size);
      EXPECT_LT(testing::RelativeError(logits, last), kRoundings * UnitRoundoff(DType::kF32))
          << "after " << end << " tokens on " << world.size();
    }
  };
  for (const int ranks : kRanks) {
    RunRanks(ranks, decode);
  }
}

TEST_P(TensorParallelTest, Bf16StaysWithinItsRoundings) {
  const ModelOptions options = Options();
  const Parameters weights = Compute(options, 1, WeightStorage::kBf16).weights;
  const Parameters numerical = NumericalGradients(options, weights);
  for (const int ranks : kRanks) {
    SCOPED_TRACE(ranks);
    const Outcome outcome = Compute(options, ranks, WeightStorage::kBf16);
    // Activations are rounded about 30 times on their way, and as often again where they are sums
    // over ranks; sums are in fp32.
    const double bound = (ranks == 1 ? 30 : 60) * UnitRoundoff(DType::kBF16);
    for (const auto& [name, gradient] : outcome.gradients) {
      EXPECT_LT(RelativeDistance(gradient, numerical.at(name)), bound) << name;
    }
  }
}

// What ranks send for activations follows from the sizes: with m = ceil(N / t) rows on each, an
// all-gather and a reduce-scatter of [m, C] each send (t - 1) m C elements from every rank.
TEST_P(TensorParallelTest, BytesSentAreThoseOfTheFormula) {
  const ModelOptions options = Options();
  for (const int64_t t : kRanks) {
    const int64_t m = (kRows + t - 1) / t;
    const int64_t piece = (t - 1) * m * options.width * 4;
    // Each of two branches of a block gathers its rows and scatters its sum; backward gathers the
    // gradient of its result and its rows again, and scatters a gradient.
    const int64_t forward = options.layers * 4 * piece;
    const int64_t backward = options.layers * 6 * piece;
    const int64_t recomputed = options.recompute == Recompute::kBlock ? forward : 0;
    // The table's rows are scattered, their gradients gathered; the head gathers features and
    // scatters their gradient in chunks, between which it sends 4 doubles for each row.
    const int64_t ends = 4 * piece + (t - 1) * kRows * 4 * 8;
    // Heads that ranks share: keys and values [N, w] twice, w the largest part of their features.
    const int64_t w = (options.kv_heads * options.head_width + t - 1) / t;
    const int64_t keys =
        options.kv_heads < t ? options.layers * (t - 1) * kRows * 2 * w * 4 : int64_t{0};
    const int64_t key_passes = options.recompute == Recompute::kBlock ? 3 : 2;

    RunRanks(static_cast<int>(t), [&](RankWorld& world) {
      SharedModel shared(options, world);
      SliceRecorder recorder(shared.params);
      const HostTensor tokens = Tokens(options, 1);
      const HostTensor losses(Shape{kRows}, DType::kF32);
      shared.model.LossAndGradient(shared.ctx, shared.params, BatchOf(tokens, tokens), 1, losses,
                                   recorder);
      EXPECT_EQ(world.communicator().bytes_sent(),
                forward + backward + recomputed + ends + key_passes * keys);
    });
  }
}

}  // namespace
}  // namespace panthera
