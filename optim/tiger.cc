#include "optim/tiger.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/check.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

bool HoldsMatrix(const ParameterStore& store, GroupId id) {
  const std::vector<ParamId>& params = store.layout(id).params;
  return std::any_of(params.begin(), params.end(),
                     [&](ParamId param) { return store.spec(param).kind == ParamKind::kMatrix; });
}

// momentum = keep * momentum + take * gradient.
PANTHERA_SIMD void Blend(float keep, float take, const float* gradient, int64_t count,
                         float* momentum) {
  for (int64_t i = 0; i < count; ++i) {
    momentum[i] = keep * momentum[i] + take * gradient[i];
  }
}

// theta -= rate * (sign(momentum) + decay * theta).
PANTHERA_SIMD void SignStep(float rate, float decay, const float* momentum, int64_t count,
                            float* theta) {
  for (int64_t i = 0; i < count; ++i) {
    const float sign = (momentum[i] > 0 ? 1.0F : 0.0F) - (momentum[i] < 0 ? 1.0F : 0.0F);
    theta[i] -= rate * (sign + decay * theta[i]);
  }
}

// theta = centre + factor * (theta - centre).
PANTHERA_SIMD void Shrink(float factor, float centre, int64_t count, float* theta) {
  for (int64_t i = 0; i < count; ++i) {
    theta[i] = factor * (theta[i] - centre) + centre;
  }
}

double RootMean(double sum_of_squares, int64_t elements) {
  return std::sqrt(sum_of_squares / static_cast<double>(elements));
}

}  // namespace

Tiger::Tiger(const OptimOptions& options, Context& ctx, ParameterStore& store,
             Communicator& data_parallel)
    : Optimizer(options, store, data_parallel),
      momentum_(ctx, store, "momentum", StateDType(options.momentum)),
      squares_(ctx, store, data_parallel, "weight sums",
               [&](GroupId id) { return HoldsMatrix(store, id); }),
      rates_(static_cast<size_t>(store.num_params())),
      shrink_factors_(rates_.size(), 1.0F) {}

void Tiger::FoldGradient(Context& ctx, GroupId group, const Tensor& contributions,
                         const FoldInput& input) {
  const Tensor& momentum = momentum_.shard(group);
  const OpTimer timer(ctx, {Op::kFold}, {.bytes = Traffic({contributions, momentum, momentum})});
  const GroupLayout& layout = store().layout(group);
  CHECK_SHAPE(contributions, contributions.size(0), layout.shard_elements);
  const bool wants_squares = input.squares.elements() > 0;
  if (wants_squares) {
    CHECK_SHAPE(input.squares, layout.shard_elements / layout.block_elements);
  }
  if (ctx.device().is_meta()) {
    return;
  }
  const bool first = input.place == MicroStepPlace::kFirst;
  const float keep = first ? static_cast<float>(options().beta1) : 1.0F;
  const auto take = static_cast<float>((1 - options().beta1) * input.weight);
  const Tensor flat = contributions.Reshape({contributions.elements()});
  ForEachBlock(store(), group, [&](const ShardBlock& block) {
    float sum[kChunkElements];
    float blended[kChunkElements];
    double squares = 0;
    const bool left_out = IsLeftOut(input.left_out, block.param);
    ForEachChunk(left_out ? 0 : block.elements, [&](int64_t offset, int64_t count) {
      const int64_t begin = block.shard_begin + offset;
      LoadRow(flat, begin, count, sum);
      for (int64_t rank = 1; rank < contributions.size(0); ++rank) {
        AddRow(flat, rank * layout.shard_elements + begin, count, sum);
      }
      LoadRow(momentum, begin, count, blended);
      Blend(keep, take, sum, count, blended);
      StoreState(momentum, begin, count, blended);
      if (wants_squares) {
        squares += SumOfSquares(sum, count);
      }
    });
    if (wants_squares) {
      double& out = input.squares.data<double>()[block.index];
      out = first ? squares : out + squares;
    }
  });
}

void Tiger::ComputeShrinkFactors(Context& ctx, const Tensor& shrinks) {
  if (shrinks.elements() == 0 || ctx.device().is_meta()) {
    return;
  }
  CHECK_SHAPE(shrinks, store().num_params());
  for (size_t i = 0; i < shrink_factors_.size(); ++i) {
    // A product of few factors, which is the same on every machine; pow need not be.
    double factor = 1;
    for (int32_t n = shrinks.data<int32_t>()[i]; n > 0; --n) {
      factor *= options().shrink_ratio;
    }
    shrink_factors_[i] = static_cast<float>(factor);
  }
}

void Tiger::ReadShrunk(const ShardBlock& block, const WeightShard& weights, int64_t offset,
                       int64_t count, float* theta) const {
  ReadWeights(weights, block.shard_begin + offset, count, theta);
  const float factor = shrink_factors_[static_cast<size_t>(block.param.index)];
  if (factor != 1) {
    const bool is_gain = store().spec(block.param).kind == ParamKind::kGain;
    Shrink(factor, is_gain ? 1.0F : 0.0F, count, theta);
  }
}

double Tiger::BlockSquares(const ShardBlock& block, const WeightShard& weights) const {
  float theta[kChunkElements];
  double sum = 0;
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    ReadShrunk(block, weights, offset, count, theta);
    sum += SumOfSquares(theta, count);
  });
  return sum;
}

void Tiger::ComputeRates(Context& ctx, double learning_rate) {
  for (int i = 0; i < store().num_groups() && !ctx.device().is_meta(); ++i) {
    const GroupId group{i};
    if (squares_.includes(group)) {
      const WeightShard weights = store().shard(group);
      double* sums = squares_.local(group).data<double>();
      ForEachBlock(store(), group, [&](const ShardBlock& block) {
        sums[block.index] = BlockSquares(block, weights);
      });
    }
  }
  squares_.Gather(data_parallel(), ctx.compute());
  for (int i = 0; i < store().num_params(); ++i) {
    const ParamId id{i};
    const ParamSpec& spec = store().spec(id);
    double& rate = rates_[static_cast<size_t>(i)];
    switch (spec.kind) {
      case ParamKind::kGain:
      case ParamKind::kBias:
        rate = 0.5 * learning_rate;
        break;
      case ParamKind::kEmbedding:
        rate = learning_rate;
        break;
      case ParamKind::kMatrix:
        rate = learning_rate * RootMean(squares_.ParamSum(id), spec.shape.elements());
        break;
    }
  }
}

void Tiger::UpdateBlock(const ShardBlock& block, const WeightShard& weights, const Tensor& momentum,
                        const StepInput& input) {
  const auto index = static_cast<size_t>(block.param.index);
  const bool left_out = IsLeftOut(input.left_out, block.param);
  if (left_out && shrink_factors_[index] == 1) {
    return;
  }
  double rate = rates_[index];
  if (store().spec(block.param).kind == ParamKind::kEmbedding) {
    rate *= RootMean(BlockSquares(block, weights), block.elements);
  }
  const RoundingBits bits = rounding_bits(block.param, input);
  float theta[kChunkElements];
  float direction[kChunkElements];
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    const int64_t begin = block.shard_begin + offset;
    ReadShrunk(block, weights, offset, count, theta);
    if (!left_out) {
      LoadRow(momentum, begin, count, direction);
      SignStep(static_cast<float>(rate), decay(block.param), direction, count, theta);
    }
    WriteWeights(weights, begin, count, theta, block.param_begin + offset, bits);
  });
}

void Tiger::Step(Context& ctx, const StepInput& input) {
  const OpTimer timer(ctx, {Op::kUpdate}, {.bytes = 2 * WeightBytes() + StateBytes()});
  const bool folded = options().accumulate == Accumulation::kMomentum;
  CHECK(!folded || input.gradients.empty()) << "gradients were folded into the momentum before";
  for (int i = 0; i < store().num_groups() && !folded; ++i) {
    const Tensor& mean = gradient(GroupId{i}, input);
    FoldInput fold;
    fold.weight = static_cast<double>(input.gradient_scale);
    fold.left_out = input.left_out;
    FoldGradient(ctx, GroupId{i}, mean.Reshape({1, mean.elements()}), fold);
  }
  ComputeShrinkFactors(ctx, input.shrinks);
  ComputeRates(ctx, input.learning_rate);
  for (int i = 0; i < store().num_groups() && !ctx.device().is_meta(); ++i) {
    const GroupId group{i};
    const WeightShard weights = store().shard(group);
    const Tensor& momentum = momentum_.shard(group);
    ForEachBlock(store(), group,
                 [&](const ShardBlock& block) { UpdateBlock(block, weights, momentum, input); });
  }
}

void Tiger::ForEachState(StateVisitor visit) const { momentum_.ForEach(visit); }

}  // namespace panthera
