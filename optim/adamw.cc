#include "optim/adamw.h"

#include <cmath>
#include <utility>

#include "optim/shard_blocks.h"
#include "optim/update_rules.h"
#include "runtime/base/check.h"
#include "runtime/base/simd.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"

namespace panthera {
namespace {

PANTHERA_SIMD void AdamWRow(const AdamWFactors& factors, float scale, float decay,
                            const float* gradient, int64_t count, float* moment1, float* moment2,
                            float* theta) {
  const AdamWFactors f = factors;
  for (int64_t i = 0; i < count; ++i) {
    AdamWStep(f, decay, scale * gradient[i], moment1[i], moment2[i], theta[i]);
  }
}

AdamWFactors Factors(const OptimOptions& options, const StepInput& input) {
  const auto t = static_cast<double>(input.step + 1);
  return {static_cast<float>(options.beta1),
          static_cast<float>(1 - options.beta1),
          static_cast<float>(options.beta2),
          static_cast<float>(1 - options.beta2),
          static_cast<float>(1 / (1 - std::pow(options.beta1, t))),
          static_cast<float>(1 / (1 - std::pow(options.beta2, t))),
          static_cast<float>(options.epsilon),
          static_cast<float>(input.learning_rate)};
}

}  // namespace

AdamW::AdamW(const OptimOptions& options, Context& ctx, ParameterStore& store, MeshAxes axes,
             std::vector<GroupId> groups)
    : Optimizer(options, store, axes, std::move(groups)),
      moment1_(ctx, store, this->groups(), MemoryCategory::kOptimizerState, "moment1",
               StateDType(options.momentum)),
      moment2_(ctx, store, this->groups(), MemoryCategory::kOptimizerState, "moment2", DType::kF32),
      mean_gradient_(ctx, store, folds() ? this->groups() : std::vector<GroupId>(),
                     MemoryCategory::kGradients, "mean gradient", DType::kF32) {}

void AdamW::FoldGradient(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                         const FoldInput& input) {
  CHECK(folds()) << "the mean gradient is given to the step as a whole";
  const Tensor& mean = mean_gradient_.shard(group);
  // What is left out of the first micro-step must not leave the step before in there.
  if (input.place == MicroStepPlace::kFirst) {
    SetZero(stream, mean);
  }
  FoldInto(ctx, stream, group, contributions, /*beta=*/0, input, mean);
}

void AdamW::UpdateBlock(const ShardBlock& block, const WeightShard& weights, const Tensor& gradient,
                        const AdamWFactors& factors, const StepInput& input) {
  const bool moves = !IsLeftOut(input.left_out, block.param);
  const float factor = shrink_factor(block.param, input.shrinks);
  if (!moves && factor == 1) {
    return;
  }
  const GroupId group = store().group_of(block.param);
  const Tensor& state1 = moment1_.shard(group);
  const Tensor& state2 = moment2_.shard(group);
  const RoundingBits bits = rounding_bits(block.param, input);
  float theta[kChunkElements];
  float moment1[kChunkElements];
  float moment2[kChunkElements];
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    const int64_t begin = block.shard_begin + offset;
    ReadShrunk(block, weights, factor, offset, count, theta);
    if (moves) {
      LoadRow(state1, begin, count, moment1);
      LoadRow(state2, begin, count, moment2);
      AdamWRow(factors, ScaleOf(input.gradient_scale), decay(block.param),
               gradient.data<float>() + begin, count, moment1, moment2, theta);
      StoreState(state1, begin, count, moment1);
      StoreState(state2, begin, count, moment2);
    }
    WriteWeights(weights, begin, count, theta, block.param_begin + offset, bits);
  });
}

void AdamW::Step(Context& ctx, const StepInput& input) {
  const OpTimer timer(ctx, {Op::kUpdate}, {.bytes = 2 * (WeightBytes() + StateBytes())});
  CHECK(!folds() || input.gradients.empty()) << "gradients were folded before";
  CheckRows(input);
  const AdamWFactors factors = Factors(options(), input);
  for (const GroupId group : groups()) {
    const Tensor& mean = folds() ? mean_gradient_.shard(group) : gradient(group, input);
    if (ctx.device().is_meta()) {
      continue;
    }
    if (ctx.device().is_cuda()) {
      cuda::UpdateAdamW(ctx.compute(), store(), group, mean, moment1_.shard(group),
                        moment2_.shard(group), factors, input, options().shrink_ratio,
                        [&](ParamId id) { return rule(id, input); });
      continue;
    }
    const WeightShard weights = store().shard(group);
    ForEachBlock(store(), group, [&](const ShardBlock& block) {
      UpdateBlock(block, weights, mean, factors, input);
    });
  }
}

void AdamW::ForEachState(StateVisitor visit) const {
  moment1_.ForEach(visit);
  moment2_.ForEach(visit);
}

}  // namespace panthera
