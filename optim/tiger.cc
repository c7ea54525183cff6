#include "optim/tiger.h"

#include <algorithm>
#include <utility>

#include "optim/update_rules.h"
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

PANTHERA_SIMD void SignStepRow(float rate, float decay, const float* momentum, int64_t count,
                               float* theta) {
  for (int64_t i = 0; i < count; ++i) {
    theta[i] = SignStep(rate, decay, momentum[i], theta[i]);
  }
}

}  // namespace

Tiger::Tiger(const OptimOptions& options, Context& ctx, ParameterStore& store,
             Communicator& data_parallel, std::vector<GroupId> groups)
    : Optimizer(options, store, data_parallel, std::move(groups)),
      momentum_(ctx, store, this->groups(), MemoryCategory::kOptimizerState, "momentum",
                StateDType(options.momentum)),
      squares_(ctx, store, data_parallel, "weight sums", [&](GroupId id) {
        return HoldsMatrix(store, id) &&
               std::ranges::find(this->groups(), id) != this->groups().end();
      }) {}

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
  squares_.Gather(data_parallel(), ctx.compute());
  squares_.SumParams(ctx.compute());
}

float Tiger::StepRate(const ShardBlock& block, const WeightShard& weights, float factor,
                      double learning_rate) const {
  const ParamSpec& spec = store().spec(block.param);
  const bool by_row = spec.kind == ParamKind::kEmbedding;
  const double squares = by_row ? BlockSquares(block, weights, factor)
                                : squares_.param_sums().data<double>()[block.param.index];
  return TigerRate(spec.kind, learning_rate, squares,
                   by_row ? block.elements : spec.shape.elements());
}

void Tiger::UpdateBlock(const ShardBlock& block, const WeightShard& weights, const Tensor& momentum,
                        const Tensor& gradient, const StepInput& input) {
  const bool left_out = IsLeftOut(input.left_out, block.param);
  const bool unseen = IsUnseen(block, input);
  const float factor = shrink_factor(block.param, input.shrinks);
  const bool moves = !left_out && !unseen;
  const bool folds = gradient.elements() > 0 && !left_out && !(unseen && keeps_unseen_state());
  if (!moves && !folds && factor == 1) {
    return;
  }
  const float rate = moves ? StepRate(block, weights, factor, input.learning_rate) : 0.0F;
  const RoundingBits bits = rounding_bits(block.param, input);
  const auto keep = static_cast<float>(options().beta1);
  const float take = TakeOfScaled(options().beta1, ScaleOf(input.gradient_scale));
  float theta[kChunkElements];
  float direction[kChunkElements];
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    const int64_t begin = block.shard_begin + offset;
    if (folds) {
      LoadRow(momentum, begin, count, direction);
      BlendRow(keep, take, gradient.data<float>() + begin, count, direction);
      StoreState(momentum, begin, count, direction);
    }
    if (!moves && factor == 1) {
      return;
    }
    ReadShrunk(block, weights, factor, offset, count, theta);
    if (moves) {
      LoadRow(momentum, begin, count, direction);
      SignStepRow(rate, decay(block.param), direction, count, theta);
    }
    WriteWeights(weights, begin, count, theta, block.param_begin + offset, bits);
  });
}

void Tiger::UpdateGroup(Context& ctx, GroupId group, const Tensor& gradient,
                        const StepInput& input) {
  const WeightShard weights = store().shard(group);
  const Tensor& momentum = momentum_.shard(group);
  if (ctx.target().is_cuda()) {
    const Arena::Scope scope(ctx.arena());
    Tensor row_squares;
    if (HoldsTable(store(), group)) {
      const GroupLayout& layout = store().layout(group);
      row_squares = ctx.arena().Allocate({layout.shard_elements / layout.block_elements},
                                         DType::kF64, "squares of embedding rows");
    }
    if (ctx.device().is_meta()) {
      return;
    }
    if (row_squares.elements() > 0) {
      cuda::SumWeightSquares(ctx.compute(), store(), group, input.shrinks, options().shrink_ratio,
                             row_squares);
    }
    cuda::UpdateTiger(ctx.compute(), store(), group,
                      {.momentum = momentum,
                       .gradient = gradient,
                       .beta = options().beta1,
                       .param_sums = squares_.param_sums(),
                       .row_squares = row_squares,
                       .shrink_ratio = options().shrink_ratio,
                       .lazy_rows = options().lazy_rows},
                      input, [&](ParamId id) { return rule(id, input); });
    return;
  }
  if (!ctx.device().is_meta()) {
    ForEachBlock(store(), group, [&](const ShardBlock& block) {
      UpdateBlock(block, weights, momentum, gradient, input);
    });
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
