#include "optim/optimizer.h"

#include "optim/adamw.h"
#include "optim/lion.h"
#include "optim/tiger.h"
#include "runtime/base/check.h"
#include "runtime/math/op_times.h"
#include "runtime/params/name_hash.h"

namespace panthera {
Optimizer::Optimizer(const OptimOptions& options, ParameterStore& store,
                     Communicator& data_parallel)
    : options_(options), store_(store), data_parallel_(data_parallel) {}

void Optimizer::FoldGradient(Context& /*ctx*/, Stream& /*stream*/, GroupId /*group*/,
                             const Tensor& /*contributions*/, const FoldInput& /*input*/) {
  CHECK(false) << EnumName(options_.algorithm) << " cannot fold gradients into its state";
}

float Optimizer::decay(ParamId id) const {
  const ParamKind kind = store_.spec(id).kind;
  const bool decays = kind == ParamKind::kMatrix || kind == ParamKind::kEmbedding;
  return decays ? static_cast<float>(options_.weight_decay) : 0.0F;
}

RoundingBits Optimizer::rounding_bits(ParamId id, const StepInput& input) const {
  return {HashName(store_.spec(id).name, input.rounding_key),
          static_cast<uint64_t>(input.step) + 1};
}

cuda::ParamRule Optimizer::rule(ParamId id, const StepInput& input) const {
  return {.rounding_key = rounding_bits(id, input).key, .decay = decay(id)};
}

bool Optimizer::IsUnseen(const ShardBlock& block, const StepInput& input) const {
  const ParamSpec& spec = store_.spec(block.param);
  return input.rows.elements() > 0 && spec.kind == ParamKind::kEmbedding &&
         input.rows.data<uint8_t>()[block.param_begin / spec.shape[1]] == 0;
}

void Optimizer::CheckRows(const StepInput& input) const {
  if (input.rows.elements() == 0) {
    return;
  }
  CHECK(options_.lazy_rows == LazyRows::kChange || options_.lazy_rows == LazyRows::kChangeAndState)
      << "rows with lazy_rows = " << EnumName(options_.lazy_rows);
  CHECK_EQ(input.rows.dtype(), DType::kU8);
  for (int i = 0; i < store_.num_params(); ++i) {
    const ParamSpec& spec = store_.spec(ParamId{i});
    if (spec.kind == ParamKind::kEmbedding) {
      CHECK_SHAPE(input.rows, spec.shape[0]);
    }
  }
}

double Optimizer::WeightBytes() const {
  double bytes = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const WeightShard shard = store_.shard(GroupId{i});
    bytes += Traffic(
        {shard.values, shard.remainder.value_or(Tensor()), shard.master.value_or(Tensor())});
  }
  return bytes;
}

double Optimizer::StateBytes() const {
  double bytes = 0;
  ForEachState([&](const char* /*name*/, GroupId /*group*/, const Tensor& shard) {
    bytes += Traffic({shard});
  });
  return bytes;
}

const Tensor& Optimizer::gradient(GroupId id, const StepInput& input) const {
  CHECK_EQ(input.gradients.size(), static_cast<size_t>(store_.num_groups()))
      << "this step needs the gradients of all groups";
  const Tensor& gradient = input.gradients[static_cast<size_t>(id.index)];
  CHECK_SHAPE(gradient, store_.layout(id).shard_elements);
  CHECK_EQ(gradient.dtype(), DType::kF32);
  return gradient;
}

std::unique_ptr<Optimizer> CreateOptimizer(const OptimOptions& options, Context& ctx,
                                           ParameterStore& store, Communicator& data_parallel) {
  switch (options.algorithm) {
    case Algorithm::kTiger:
      return std::make_unique<Tiger>(options, ctx, store, data_parallel);
    case Algorithm::kLion:
      return std::make_unique<Lion>(options, ctx, store, data_parallel);
    case Algorithm::kAdamW:
      return std::make_unique<AdamW>(options, ctx, store, data_parallel);
  }
  CHECK(false) << static_cast<int>(options.algorithm);
  return nullptr;
}

}  // namespace panthera
