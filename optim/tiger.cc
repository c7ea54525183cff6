#include "optim/tiger.h"

#include <algorithm>
#include <utility>

#include "optim/direction_codes.h"
#include "optim/update_rules.h"
#include "runtime/base/check.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

// Whether a group holds a tensor whose rate is relative to its RMS as a whole.
bool ScalesAsAWhole(const ParameterStore& store, GroupId id, TableRms table_rms) {
  const std::vector<ParamId>& params = store.layout(id).params;
  return std::any_of(params.begin(), params.end(), [&](ParamId param) {
    const ParamKind kind = store.spec(param).kind;
    return kind == ParamKind::kMatrix ||
           (kind == ParamKind::kEmbedding && table_rms == TableRms::kTable);
  });
}

PANTHERA_SIMD void SignStepRow(float rate, float decay, const float* momentum, int64_t count,
                               float* theta) {
  for (int64_t i = 0; i < count; ++i) {
    theta[i] = SignStep(rate, decay, momentum[i], theta[i]);
  }
}

}  // namespace

Tiger::Tiger(const OptimOptions& options, Context& ctx, ParameterStore& store, MeshAxes axes,
             std::vector<GroupId> groups)
    : Optimizer(options, store, axes, std::move(groups)),
      momentum_(ctx, store, this->groups(), MemoryCategory::kOptimizerState, "momentum",
                StateDType(options.momentum)),
      squares_(ctx, store, axes, "weight sums", [&](GroupId id) {
        return ScalesAsAWhole(store, id, options.table_rms) &&
               std::ranges::find(this->groups(), id) != this->groups().end();
      }) {
  PrepareDirections(ctx, [&](GroupId id) {
    const bool by_row = options.table_rms == TableRms::kRow && HoldsTable(store, id);
    return by_row ? RateUnit::kBlock : RateUnit::kTensor;
  });
}

void Tiger::FoldGradient(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                         const FoldInput& input) {
  FoldInto(ctx, stream, group, contributions, options().beta1, input, momentum_.shard(group));
}

double Tiger::BlockSquares(const ShardBlock& block, const WeightShard& weights,
                           float factor) const {
  float theta[kChunkElements];
  double sum = 0;
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    ReadShrunk(block, weights, factor, offset, count, theta);
    sum += SumOfSquares(theta, count);
  });
  return sum;
}

void Tiger::SumWeights(Context& ctx, const StepInput& input) {
  for (const GroupId group : groups()) {
    if (!squares_.includes(group) || ctx.device().is_meta()) {
      continue;
    }
    if (ctx.device().is_cuda()) {
      cuda::SumWeightSquares(ctx.compute(), store(), group, input.shrinks, options().shrink_ratio,
                             squares_.local(group));
      continue;
    }
    const WeightShard weights = store().shard(group);
    double* sums = squares_.local(group).data<double>();
    ForEachBlock(store(), group, [&](const ShardBlock& block) {
      sums[block.index] = BlockSquares(block, weights, shrink_factor(block.param, input.shrinks));
    });
  }
  squares_.SumParams(ctx.compute());
}

float Tiger::StepRate(const ShardBlock& block, const WeightShard& weights, float factor,
                      double learning_rate) const {
  const ParamSpec& spec = store().spec(block.param);
  const bool by_row = scales_by_row(block.param);
  const double squares = by_row ? BlockSquares(block, weights, factor)
                                : squares_.param_sums().data<double>()[block.param.index];
  return TigerRate(spec.kind, learning_rate, squares,
                   by_row ? block.elements : spec.logical_shape().elements());
}

Tiger::BlockPlan Tiger::PlanOf(const ShardBlock& block, const Tensor& gradient,
                               const StepInput& input) const {
  const bool left_out = IsLeftOut(input.left_out, block.param);
  const bool unseen = IsUnseen(block, input);
  return {.moves = !left_out && !unseen,
          .folds = gradient.elements() > 0 && !left_out && !(unseen && keeps_unseen_state()),
          .factor = shrink_factor(block.param, input.shrinks)};
}

void Tiger::FoldChunk(const Tensor& momentum, const Tensor& gradient, const StepInput& input,
                      int64_t begin, int64_t count) const {
  const float take = TakeOfScaled(options().beta1, ScaleOf(input.gradient_scale));
  float blended[kChunkElements];
  LoadRow(momentum, begin, count, blended);
  BlendRow(static_cast<float>(options().beta1), take, gradient.data<float>() + begin, count,
           blended);
  StoreState(momentum, begin, count, blended);
}

void Tiger::UpdateBlock(const ShardBlock& block, const WeightShard& weights, const Tensor& momentum,
                        const Tensor& gradient, const StepInput& input) {
  const BlockPlan plan = PlanOf(block, gradient, input);
  if (!plan.moves && !plan.folds && plan.factor == 1) {
    return;
  }
  const float rate = plan.moves ? StepRate(block, weights, plan.factor, input.learning_rate) : 0.0F;
  const RoundingBits bits = rounding_bits(block.param, input);
  float theta[kChunkElements];
  float direction[kChunkElements];
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    const int64_t begin = block.shard_begin + offset;
    if (plan.folds) {
      FoldChunk(momentum, gradient, input, begin, count);
    }
    if (!plan.moves && plan.factor == 1) {
      return;
    }
    ReadShrunk(block, weights, plan.factor, offset, count, theta);
    if (plan.moves) {
      LoadRow(momentum, begin, count, direction);
      SignStepRow(rate, decay(block.param), direction, count, theta);
    }
    WriteWeights(weights, begin, count, theta, block.param_begin + offset, bits);
  });
}

void Tiger::DecideBlock(const DirectionMessage& message, const ShardBlock& block,
                        const WeightShard& weights, const Tensor& gradient,
                        const StepInput& input) const {
  const Tensor& momentum = momentum_.shard(store().group_of(block.param));
  const BlockPlan plan = PlanOf(block, gradient, input);
  uint8_t* codes = message.codes_of(block.index);
  if (plan.moves && message.layout.rate_unit == RateUnit::kBlock) {
    message.rates.data<float>()[block.index] =
        StepRate(block, weights, plan.factor, input.learning_rate);
  }
  if (!plan.moves) {
    PackRests(block.elements, codes);
  }
  float direction[kChunkElements];
  ForEachChunk(plan.moves || plan.folds ? block.elements : 0, [&](int64_t offset, int64_t count) {
    const int64_t begin = block.shard_begin + offset;
    if (plan.folds) {
      FoldChunk(momentum, gradient, input, begin, count);
    }
    if (plan.moves) {
      LoadRow(momentum, begin, count, direction);
      PackDirections(direction, count, codes + offset / kCodesPerByte);
    }
  });
}

void Tiger::DecideGroup(Context& ctx, GroupId group, const Tensor& gradient,
                        const StepInput& input) const {
  const DirectionMessage message = directions(ctx, group);
  const WeightShard weights = store().shard(group);
  const std::vector<ParamId>& params = store().layout(group).params;
  for (size_t i = 0; i < params.size(); ++i) {
    const ParamSpec& spec = store().spec(params[i]);
    message.factors.data<float>()[i] = shrink_factor(params[i], input.shrinks);
    if (message.layout.rate_unit == RateUnit::kTensor) {
      message.rates.data<float>()[i] = TigerRate(
          spec.kind, input.learning_rate, squares_.param_sums().data<double>()[params[i].index],
          spec.logical_shape().elements());
    }
  }
  ForEachBlock(store(), group, [&](const ShardBlock& block) {
    DecideBlock(message, block, weights, gradient, input);
  });
}

void Tiger::UpdateOnGpu(Context& ctx, GroupId group, const Tensor& gradient,
                        const StepInput& input) {
  const Arena::Scope scope(ctx.arena());
  Tensor row_squares;
  if (options().table_rms == TableRms::kRow && HoldsTable(store(), group)) {
    const GroupLayout& layout = store().layout(group);
    row_squares = ctx.arena().Allocate({layout.shard_elements / layout.block_elements}, DType::kF64,
                                       "squares of embedding rows");
  }
  if (ctx.device().is_meta()) {
    return;
  }
  if (row_squares.elements() > 0) {
    cuda::SumWeightSquares(ctx.compute(), store(), group, input.shrinks, options().shrink_ratio,
                           row_squares);
  }
  const cuda::TigerUpdate update = {.momentum = momentum_.shard(group),
                                    .gradient = gradient,
                                    .beta = options().beta1,
                                    .param_sums = squares_.param_sums(),
                                    .row_squares = row_squares,
                                    .shrink_ratio = options().shrink_ratio,
                                    .lazy_rows = options().lazy_rows};
  if (sends_directions(group)) {
    cuda::DecideTiger(ctx.compute(), store(), group, update, input, directions(ctx, group));
  } else {
    cuda::UpdateTiger(ctx.compute(), store(), group, update, input,
                      [&](ParamId id) { return rule(id, input); });
  }
}

void Tiger::UpdateGroup(Context& ctx, GroupId group, const Tensor& gradient,
                        const StepInput& input) {
  const bool sends = sends_directions(group);
  if (ctx.target().is_cuda()) {
    UpdateOnGpu(ctx, group, gradient, input);
  } else if (!ctx.device().is_meta() && sends) {
    DecideGroup(ctx, group, gradient, input);
  } else if (!ctx.device().is_meta()) {
    const WeightShard weights = store().shard(group);
    const Tensor& momentum = momentum_.shard(group);
    ForEachBlock(store(), group, [&](const ShardBlock& block) {
      UpdateBlock(block, weights, momentum, gradient, input);
    });
  }
  if (sends) {
    ApplyDirections(ctx, group, input);
  }
}

void Tiger::Step(Context& ctx, const StepInput& input) {
  const OpTimer timer(ctx, {Op::kUpdate}, {.bytes = 2 * WeightBytes() + StateBytes()});
  const bool folded = options().accumulate == Accumulation::kMomentum;
  CHECK(!folded || input.gradients.empty()) << "gradients were folded into the momentum before";
  CheckRows(input);
  CHECK(input.shrinks.elements() == 0 || input.shrinks.elements() == store().num_params());
  SumWeights(ctx, input);
  for (const GroupId group : groups()) {
    UpdateGroup(ctx, group, folded ? Tensor() : gradient(group, input), input);
  }
}

void Tiger::ForEachState(StateVisitor visit) const { momentum_.ForEach(visit); }

}  // namespace panthera
