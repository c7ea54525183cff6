#include "optim/adamw.h"

#include <cmath>

#include "optim/shard_blocks.h"
#include "optim/update_rules.h"
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

AdamW::AdamW(const OptimOptions& options, Context& ctx, ParameterStore& store,
             Communicator& data_parallel)
    : Optimizer(options, store, data_parallel),
      moment1_(ctx, store, "moment1", StateDType(options.momentum)),
      moment2_(ctx, store, "moment2", DType::kF32) {}

void AdamW::Step(Context& ctx, const StepInput& input) {
  const OpTimer timer(ctx, {Op::kUpdate}, {.bytes = 2 * (WeightBytes() + StateBytes())});
  CheckRows(input);
  const AdamWFactors factors = Factors(options(), input);
  for (int i = 0; i < store().num_groups(); ++i) {
    const GroupId group{i};
    const Tensor& gradients = gradient(group, input);
    if (ctx.device().is_meta()) {
      continue;
    }
    const Tensor& state1 = moment1_.shard(group);
    const Tensor& state2 = moment2_.shard(group);
    if (ctx.device().is_cuda()) {
      cuda::UpdateAdamW(ctx.compute(), store(), group, gradients, state1, state2, factors, input,
                        [&](ParamId id) { return rule(id, input); });
      continue;
    }
    const WeightShard weights = store().shard(group);
    ForEachBlock(store(), group, [&](const ShardBlock& block) {
      if (IsLeftOut(input.left_out, block.param)) {
        return;
      }
      const RoundingBits bits = rounding_bits(block.param, input);
      float theta[kChunkElements];
      float moment1[kChunkElements];
      float moment2[kChunkElements];
      ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
        const int64_t begin = block.shard_begin + offset;
        LoadRow(state1, begin, count, moment1);
        LoadRow(state2, begin, count, moment2);
        ReadWeights(weights, begin, count, theta);
        AdamWRow(factors, ScaleOf(input.gradient_scale), decay(block.param),
                 gradients.data<float>() + begin, count, moment1, moment2, theta);
        StoreState(state1, begin, count, moment1);
        StoreState(state2, begin, count, moment2);
        WriteWeights(weights, begin, count, theta, block.param_begin + offset, bits);
      });
    });
  }
}

void AdamW::ForEachState(StateVisitor visit) const {
  moment1_.ForEach(visit);
  moment2_.ForEach(visit);
}

}  // namespace panthera
