#include "model/layers/attention.h"

#include <cmath>

namespace panthera {

Attention::Attention(ParameterStore& params, GroupId group, const std::string& name,
                     const ModelOptions& options)
    : heads_(options.heads),
      kv_heads_(options.kv_heads),
      head_width_(options.head_width),
      window_(options.attention_window),
      scale_(1.0F / std::sqrt(static_cast<float>(options.head_width))),
      qkv_(params, group,
           {{name + ".q_proj.weight", heads_ * head_width_},
            {name + ".k_proj.weight", kv_heads_ * head_width_},
            {name + ".v_proj.weight", kv_heads_ * head_width_}},
           options.width, options.init_deviation, Op::kQkv),
      out_(params, group, {{name + ".o_proj.weight", options.width}}, heads_ * head_width_,
           options.residual_init_deviation(), Op::kAttentionOut) {}

Attention::Saved Attention::Allocate(Context& ctx, int64_t sequences, int64_t tokens,
                                     DType dtype) const {
  const int64_t rows = sequences * tokens;
  Arena& arena = ctx.arena();
  return {.qkv = arena.Allocate({rows, qkv_.outputs()}, dtype, "queries, keys, values"),
          .out = arena.Allocate({rows, heads_ * head_width_}, dtype, "attention output"),
          .lse = arena.Allocate({sequences, heads_, tokens}, DType::kF32, "attention lse")};
}

Attention::Projections Attention::Split(const Tensor& qkv, int64_t sequences) const {
  const int64_t queries = heads_ * head_width_;
  const int64_t keys = kv_heads_ * head_width_;
  return {.q = Heads::Columns(qkv, sequences, 0, heads_, head_width_),
          .k = Heads::Columns(qkv, sequences, queries, kv_heads_, head_width_),
          .v = Heads::Columns(qkv, sequences, queries + keys, kv_heads_, head_width_)};
}

AttentionBand Attention::Band(const Heads& q, const Heads& k, const RotaryTable& q_rotary,
                              const RotaryTable& k_rotary) const {
  return {.q = q,
          .k = k,
          .begin = 0,
          .end = window_ == 0 ? AttentionBand::kUnbounded : window_,
          .q_rotation = q_rotary,
          .k_rotation = k_rotary};
}

void Attention::Forward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                        const Tensor& x, Tensor y, const Saved& saved) const {
  qkv_.Forward(ctx, params, x, saved.qkv);
  const int64_t sequences = saved.lse.size(0);
  const RotaryTable table = rotary.Rows(0, saved.lse.size(2));
  const Projections heads = Split(saved.qkv, sequences);
  Rotate(ctx, Rotation::kForward, heads.q, table, heads.q);
  Rotate(ctx, Rotation::kForward, heads.k, table, heads.k);
  const AttentionBand band = Band(heads.q, heads.k, table, table);
  AttentionForward(ctx, {&band, 1}, heads.v, scale_,
                   Heads::Columns(saved.out, sequences, 0, heads_, head_width_), saved.lse);
  out_.Forward(ctx, params, saved.out, y);
}

void Attention::Backward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                         const Tensor& dy, const Tensor& x, const Saved& saved, Tensor dx,
                         GradientSink& sink) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t sequences = saved.lse.size(0);
  const RotaryTable table = rotary.Rows(0, saved.lse.size(2));
  out_.BackwardWeights(ctx, params, dy, saved.out, sink);
  const Tensor dout =
      ctx.arena().Allocate(saved.out.shape(), saved.out.dtype(), "attention output gradient");
  out_.BackwardInput(ctx, params, dy, dout);
  const Tensor dqkv =
      ctx.arena().Allocate(saved.qkv.shape(), saved.qkv.dtype(), "queries, keys, values gradient");
  const Projections heads = Split(saved.qkv, sequences);
  const Projections gradients = Split(dqkv, sequences);
  const AttentionBand band = Band(heads.q, heads.k, table, table);
  AttentionBackward(ctx, Heads::Columns(dout, sequences, 0, heads_, head_width_), {&band, 1},
                    heads.v, Heads::Columns(saved.out, sequences, 0, heads_, head_width_),
                    saved.lse, scale_, gradients.q, gradients.k, gradients.v);
  qkv_.BackwardWeights(ctx, params, dqkv, x, sink);
  qkv_.BackwardInput(ctx, params, dqkv, dx);
}

void Attention::Decode(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                       const Tensor& x, int64_t position, const LayerCache& cache, Tensor y) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t rows = x.size(0);
  const int64_t length = position + rows;
  const Saved scratch = Allocate(ctx, 1, rows, x.dtype());
  qkv_.Forward(ctx, params, x, scratch.qkv);
  const Projections heads = Split(scratch.qkv, 1);
  const RotaryTable q_rotary = rotary.Rows(position, length);
  Rotate(ctx, Rotation::kForward, heads.q, q_rotary, heads.q);
  const Shape cached{1, length, kv_heads_, head_width_};
  const Tensor keys = cache.keys.Reshape({cache.keys.size(1), kv_heads_ * head_width_});
  const Tensor values = cache.values.Reshape({cache.values.size(1), kv_heads_ * head_width_});
  Rotate(ctx, Rotation::kForward, heads.k, q_rotary,
         Heads(keys.Slice(position, length).Reshape({1, rows, kv_heads_, head_width_})));
  CopyHeads(ctx, heads.v,
            Heads(values.Slice(position, length).Reshape({1, rows, kv_heads_, head_width_})));
  const AttentionBand band =
      Band(heads.q, Heads(keys.Slice(0, length).Reshape(cached)), q_rotary, rotary.Rows(0, length));
  AttentionForward(ctx, {&band, 1}, Heads(values.Slice(0, length).Reshape(cached)), scale_,
                   Heads::Columns(scratch.out, 1, 0, heads_, head_width_), scratch.lse);
  out_.Forward(ctx, params, scratch.out, y);
}

}  // namespace panthera
