#include "model/layers/block.h"

#include "model/ops/residual.h"

namespace panthera {

Block::Block(ParameterStore& params, GroupId group, GroupId gains, TensorAxis& axis,
             const std::string& name, const ModelOptions& options)
    : group_(group),
      axis_(&axis),
      width_(options.width),
      norm1_(params, gains, name + ".input_layernorm.weight", options.width, options.norm_epsilon),
      attention_(params, group, axis, name + ".self_attn", options),
      norm2_(params, gains, name + ".post_attention_layernorm.weight", options.width,
             options.norm_epsilon),
      mlp_(params, group, axis, name + ".mlp", options) {}

Block::Saved Block::Allocate(Context& ctx, int64_t sequences, int64_t tokens, DType dtype) const {
  const int64_t all_rows = sequences * tokens;
  const int64_t rows = axis_->LocalRows(all_rows);
  Arena& arena = ctx.arena();
  return {.norm1 = arena.Allocate({rows, width_}, dtype, "norm 1"),
          .rstd1 = arena.Allocate({rows}, DType::kF32, "norm 1 scale"),
          .attention = attention_.Allocate(ctx, sequences, tokens, dtype),
          .middle = arena.Allocate({rows, width_}, dtype, "block middle"),
          .norm2 = arena.Allocate({rows, width_}, dtype, "norm 2"),
          .rstd2 = arena.Allocate({rows}, DType::kF32, "norm 2 scale"),
          .mlp = mlp_.Allocate(ctx, all_rows, dtype)};
}

void Block::Forward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                    const Tensor& x, Tensor y, const Saved& saved) const {
  params.AwaitPublished(group_, ctx.compute());
  const Arena::Scope scope(ctx.arena());
  const Tensor branch = ctx.arena().Allocate(x.shape(), x.dtype(), "block branch");
  norm1_.Forward(ctx, params, x, saved.norm1, saved.rstd1);
  attention_.Forward(ctx, params, rotary, saved.norm1, branch, saved.attention);
  norm2_.ForwardAdd(ctx, params, x, branch, saved.middle, saved.norm2, saved.rstd2);
  mlp_.Forward(ctx, params, saved.norm2, branch, saved.mlp);
  Add(ctx, saved.middle, branch, y);
}

void Block::Backward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                     const Tensor& x, const Saved& saved, Tensor dy, GradientSink& sink) const {
  const Arena::Scope scope(ctx.arena());
  const Tensor dbranch = ctx.arena().Allocate(x.shape(), x.dtype(), "block branch gradient");
  mlp_.Backward(ctx, params, dy, saved.norm2, saved.mlp, dbranch, sink);
  norm2_.BackwardAdd(ctx, params, dbranch, saved.middle, saved.rstd2, dy, dy, sink);
  attention_.Backward(ctx, params, rotary, dy, saved.norm1, saved.attention, dbranch, sink);
  norm1_.BackwardAdd(ctx, params, dbranch, x, saved.rstd1, dy, dy, sink);
  sink.GroupComplete(group_);
}

void Block::Decode(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                   NewTokens tokens, const LayerCache& cache, Tensor x) const {
  params.AwaitPublished(group_, ctx.compute());
  const Arena::Scope scope(ctx.arena());
  const int64_t rows = x.size(0);
  const Tensor normed = ctx.arena().Allocate(x.shape(), x.dtype(), "decode norm");
  const Tensor branch = ctx.arena().Allocate(x.shape(), x.dtype(), "decode branch");
  const Tensor rstd = ctx.arena().Allocate({rows}, DType::kF32, "decode norm scale");
  norm1_.Forward(ctx, params, x, normed, rstd);
  attention_.Decode(ctx, params, rotary, normed, tokens, cache, branch);
  norm2_.ForwardAdd(ctx, params, x, branch, x, normed, rstd);
  mlp_.Forward(ctx, params, normed, branch, mlp_.Allocate(ctx, tokens.count, x.dtype()));
  Add(ctx, x, branch, x);
}

}  // namespace panthera
