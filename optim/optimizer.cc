#include "optim/optimizer.h"

#include <algorithm>
#include <utility>

#include "optim/adamw.h"
#include "optim/lion.h"
#include "optim/split_optimizer.h"
#include "optim/state_shards.h"
#include "optim/tiger.h"
#include "optim/update_rules.h"
#include "runtime/base/check.h"
#include "runtime/math/op_times.h"
#include "runtime/math/rows.h"
#include "runtime/params/name_hash.h"

namespace panthera {
namespace {

std::unique_ptr<Optimizer> CreateFor(std::vector<GroupId> groups, const OptimOptions& options,
                                     Context& ctx, ParameterStore& store, MeshAxes axes) {
  switch (options.algorithm) {
    case Algorithm::kTiger:
      return std::make_unique<Tiger>(options, ctx, store, axes, std::move(groups));
    case Algorithm::kLion:
      return std::make_unique<Lion>(options, ctx, store, axes, std::move(groups));
    case Algorithm::kAdamW:
      return std::make_unique<AdamW>(options, ctx, store, axes, std::move(groups));
  }
  CHECK(false) << static_cast<int>(options.algorithm);
  return nullptr;
}

}  // namespace

Optimizer::Optimizer(const OptimOptions& options, ParameterStore& store, MeshAxes axes,
                     std::vector<GroupId> groups)
    : options_(options), store_(store), axes_(axes), groups_(std::move(groups)) {}

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
  const ParamSpec& spec = store_.spec(id);
  return {HashName(spec.name, input.rounding_key), rounding_stream(input), spec.logical_elements()};
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

void Optimizer::FoldInto(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                         double beta, const FoldInput& input, const Tensor& state) const {
  const OpTimer timer(ctx, {Op::kFold}, {.bytes = Traffic({contributions, state, state})});
  const GroupLayout& layout = store_.layout(group);
  CHECK_SHAPE(contributions, contributions.size(0), layout.shard_elements);
  const bool wants_squares = input.squares.elements() > 0;
  if (wants_squares) {
    CHECK_SHAPE(input.squares, layout.shard_elements / layout.block_elements);
  }
  if (ctx.device().is_meta()) {
    return;
  }
  if (ctx.device().is_cuda()) {
    cuda::FoldGradient(stream, store_, group, contributions, state, beta, input);
    return;
  }
  const bool first = input.place == MicroStepPlace::kFirst;
  const float keep = first ? static_cast<float>(beta) : 1.0F;
  const auto take = static_cast<float>((1 - beta) * input.weight);
  const Tensor flat = contributions.Reshape({contributions.elements()});
  ForEachBlock(store_, group, [&](const ShardBlock& block) {
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
      LoadRow(state, begin, count, blended);
      BlendRow(keep, take, sum, count, blended);
      StoreState(state, begin, count, blended);
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

float Optimizer::shrink_factor(ParamId id, const Tensor& shrinks) const {
  return shrinks.elements() == 0
             ? 1.0F
             : ShrinkFactor(options_.shrink_ratio, shrinks.data<int32_t>()[id.index]);
}

void Optimizer::ReadShrunk(const ShardBlock& block, const WeightShard& weights, float factor,
                           int64_t offset, int64_t count, float* theta) const {
  ReadWeights(weights, block.shard_begin + offset, count, theta);
  if (factor != 1) {
    const bool is_gain = store_.spec(block.param).kind == ParamKind::kGain;
    ShrinkRow(is_gain ? 1.0F : 0.0F, factor, count, theta);
  }
}

double Optimizer::WeightBytes() const {
  double bytes = 0;
  for (const GroupId group : groups_) {
    const WeightShard shard = store_.shard(group);
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

void Optimizer::PrepareDirections(Context& ctx, absl::FunctionRef<RateUnit(GroupId)> rate_unit) {
  if (options_.publish == PublishMode::kDirection) {
    directions_.emplace(ctx, store_, axes_.data(), [&](GroupId id) -> std::optional<RateUnit> {
      return std::ranges::find(groups_, id) != groups_.end() ? std::optional(rate_unit(id))
                                                             : std::nullopt;
    });
  }
}

void Optimizer::ApplyDirections(Context& ctx, GroupId id, const StepInput& input) {
  step_ = input.step;
  rounding_key_ = input.rounding_key;
  directions_->ApplyOwn(ctx.compute(), id, rounding_stream(input),
                        [&](ParamId param) { return rule(param, input); });
}

void Optimizer::Publish(Context& ctx) {
  const OpTimer timer(ctx, {Op::kPublish}, {});
  if (!directions_.has_value()) {
    store_.Publish(axes_.data(), ctx.compute(), ctx.exchange());
    return;
  }
  StepInput input;
  input.step = step_;
  input.rounding_key = rounding_key_;
  directions_->Publish(ctx, rounding_stream(input),
                       [&](ParamId param) { return rule(param, input); });
}

bool HoldsTable(const ParameterStore& store, GroupId group) {
  return store.spec(store.layout(group).params.front()).kind == ParamKind::kEmbedding;
}

std::vector<GroupId> AllGroups(const ParameterStore& store) {
  std::vector<GroupId> groups;
  for (int i = 0; i < store.num_groups(); ++i) {
    groups.push_back(GroupId{i});
  }
  return groups;
}

std::unique_ptr<Optimizer> CreateOptimizer(const OptimOptions& options, Context& ctx,
                                           ParameterStore& store, MeshAxes axes) {
  if (options.table.optimizer == TableOptimizer::kSame) {
    return CreateFor(AllGroups(store), options, ctx, store, axes);
  }
  std::vector<GroupId> table;
  std::vector<GroupId> others;
  for (const GroupId group : AllGroups(store)) {
    (HoldsTable(store, group) ? table : others).push_back(group);
  }
  return std::make_unique<SplitOptimizer>(
      options, store, axes, CreateFor(std::move(table), options.ForTable(), ctx, store, axes),
      CreateFor(std::move(others), options, ctx, store, axes));
}

}  // namespace panthera
