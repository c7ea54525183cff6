#include "optim/lion.h"

#include <algorithm>
#include <utility>

#include "optim/direction_codes.h"
#include "optim/shard_blocks.h"
#include "optim/update_rules.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

PANTHERA_SIMD void LionRow(const LionFactors& factors, float scale, float decay,
                           const float* gradient, int64_t count, float* momentum, float* theta) {
  const LionFactors f = factors;
  for (int64_t i = 0; i < count; ++i) {
    LionStep(f, decay, scale * gradient[i], momentum[i], theta[i]);
  }
}

PANTHERA_SIMD void DirectionRow(const LionFactors& factors, float scale, const float* gradient,
                                int64_t count, float* momentum, float* direction) {
  const LionFactors f = factors;
  for (int64_t i = 0; i < count; ++i) {
    direction[i] = LionDirection(f, scale * gradient[i], momentum[i]);
  }
}

}  // namespace

Lion::Lion(const OptimOptions& options, Context& ctx, ParameterStore& store, MeshAxes axes,
           std::vector<GroupId> groups)
    : Optimizer(options, store, axes, std::move(groups)),
      momentum_(ctx, store, this->groups(), MemoryCategory::kOptimizerState, "momentum",
                StateDType(options.momentum)) {
  PrepareDirections(ctx, [](GroupId) { return RateUnit::kTensor; });
}

void Lion::Step(Context& ctx, const StepInput& input) {
  const OpTimer timer(ctx, {Op::kUpdate}, {.bytes = 2 * (WeightBytes() + StateBytes())});
  CheckRows(input);
  const LionFactors factors = {
      static_cast<float>(options().beta1), static_cast<float>(1 - options().beta1),
      static_cast<float>(options().beta2), static_cast<float>(1 - options().beta2),
      static_cast<float>(input.learning_rate)};
  for (const GroupId group : groups()) {
    const Tensor& gradients = gradient(group, input);
    if (sends_directions(group)) {
      Decide(ctx, group, gradients, factors, input);
      ApplyDirections(ctx, group, input);
      continue;
    }
    if (ctx.device().is_meta()) {
      continue;
    }
    const Tensor& state = momentum_.shard(group);
    if (ctx.device().is_cuda()) {
      cuda::UpdateLion(ctx.compute(), store(), group, gradients, state, factors, input,
                       options().lazy_rows, [&](ParamId id) { return rule(id, input); });
      continue;
    }
    const WeightShard weights = store().shard(group);
    ForEachBlock(store(), group, [&](const ShardBlock& block) {
      const bool unseen = IsUnseen(block, input);
      if (IsLeftOut(input.left_out, block.param) || (unseen && keeps_unseen_state())) {
        return;
      }
      const RoundingBits bits = rounding_bits(block.param, input);
      float theta[kChunkElements];
      float momentum[kChunkElements];
      ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
        const int64_t begin = block.shard_begin + offset;
        LoadRow(state, begin, count, momentum);
        ReadWeights(weights, begin, count, theta);
        LionRow(factors, ScaleOf(input.gradient_scale), decay(block.param),
                gradients.data<float>() + begin, count, momentum, theta);
        StoreState(state, begin, count, momentum);
        if (!unseen) {
          WriteWeights(weights, begin, count, theta, block.param_begin + offset, bits);
        }
      });
    });
  }
}

void Lion::Decide(Context& ctx, GroupId group, const Tensor& gradients, const LionFactors& factors,
                  const StepInput& input) {
  if (ctx.device().is_meta()) {
    return;
  }
  const DirectionMessage message = directions(ctx, group);
  const Tensor& state = momentum_.shard(group);
  if (ctx.device().is_cuda()) {
    cuda::DecideLion(ctx.compute(), store(), group, gradients, state, factors, input,
                     options().lazy_rows, message);
    return;
  }
  std::fill_n(message.factors.data<float>(), message.factors.elements(), 1.0F);
  std::fill_n(message.rates.data<float>(), message.rates.elements(), factors.rate);
  ForEachBlock(store(), group, [&](const ShardBlock& block) {
    uint8_t* codes = message.codes_of(block.index);
    const bool left_out = IsLeftOut(input.left_out, block.param);
    const bool unseen = IsUnseen(block, input);
    if (left_out || unseen) {
      PackRests(block.elements, codes);
    }
    if (left_out || (unseen && keeps_unseen_state())) {
      return;
    }
    float momentum[kChunkElements];
    float direction[kChunkElements];
    ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
      const int64_t begin = block.shard_begin + offset;
      LoadRow(state, begin, count, momentum);
      DirectionRow(factors, ScaleOf(input.gradient_scale), gradients.data<float>() + begin, count,
                   momentum, direction);
      StoreState(state, begin, count, momentum);
      if (!unseen) {
        PackDirections(direction, count, codes + offset / kCodesPerByte);
      }
    });
  });
}

void Lion::ForEachState(StateVisitor visit) const { momentum_.ForEach(visit); }

}  // namespace panthera
