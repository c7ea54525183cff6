#include "model/layers/attention.h"

#include <algorithm>
#include <cmath>

#include "runtime/comm/reduce.h"
#include "runtime/math/vector_ops.h"

namespace panthera {
namespace {

// A share of heads as one of their features.
Share InFeatures(const Share& heads, int64_t width) {
  return {heads.begin * width, heads.end * width, heads.whole * width};
}

}  // namespace

HeadShares::HeadShares(const ModelOptions& options, int64_t ranks, int64_t rank) {
  CHECK_LE(ranks, options.heads);
  const int64_t served = options.heads / options.kv_heads;  // query heads of a key/value head
  are_shared = options.kv_heads < ranks;
  if (!are_shared) {
    keys = ShareOf(options.kv_heads, ranks, rank);
    queries = {keys.begin * served, keys.end * served, options.heads};
    key_rows = {keys.begin * options.head_width, keys.end * options.head_width,
                options.kv_heads * options.head_width};
    return;
  }
  // The last heads get one rank more: rank 0 computes as many query heads as any.
  const auto sharers_of = [&](int64_t head) {
    return ShareOf(ranks, options.kv_heads, options.kv_heads - 1 - head).size();
  };
  int64_t head = 0;
  int64_t first_rank = 0;
  while (rank >= first_rank + sharers_of(head)) {
    first_rank += sharers_of(head++);
  }
  const int64_t sharers = sharers_of(head);
  keys = {head, head + 1, options.kv_heads};
  const Share among = ShareOf(served, sharers, rank - first_rank);
  queries = {head * served + among.begin, head * served + among.end, options.heads};
  key_rows = ShareOf(options.kv_heads * options.head_width, ranks, rank);
}

Attention::Attention(ParameterStore& params, GroupId group, TensorAxis& axis,
                     const std::string& name, const ModelOptions& options)
    : axis_(&axis),
      shares_(options, axis.size(), axis.rank()),
      heads_(shares_.queries.size()),
      kv_heads_(shares_.keys.size()),
      head_width_(options.head_width),
      window_(options.attention_window),
      scale_(1.0F / std::sqrt(static_cast<float>(options.head_width))),
      qkv_(params, group,
           {{name + ".q_proj.weight", InFeatures(shares_.queries, head_width_)},
            {name + ".k_proj.weight", shares_.key_rows},
            {name + ".v_proj.weight", shares_.key_rows}},
           Share::All(options.width), options.init_deviation, Op::kQkv),
      out_(params, group, {{name + ".o_proj.weight", Share::All(options.width)}},
           InFeatures(shares_.queries, head_width_), options.residual_init_deviation(),
           Op::kAttentionOut) {}

Attention::Saved Attention::Allocate(Context& ctx, int64_t sequences, int64_t tokens,
                                     DType dtype) const {
  const int64_t rows = sequences * tokens;
  Arena& arena = ctx.arena();
  return {.qkv = arena.Allocate({rows, (heads_ + 2 * kv_heads_) * head_width_}, dtype,
                                "queries, keys, values"),
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

template <typename Body>
void Attention::ForEachKeyPart(const Body& body) const {
  const Share head = InFeatures(shares_.keys, head_width_);
  for (int rank = 0; rank < axis_->size(); ++rank) {
    const Share held = ShareOf(shares_.key_rows.whole, axis_->size(), rank);
    const int64_t begin = std::max(held.begin, head.begin);
    const int64_t end = std::min(held.end, head.end);
    if (begin < end) {
      body(rank, begin - held.begin, begin - head.begin, end - begin);
    }
  }
}

void Attention::ExchangeKeys(Context& ctx, const Tensor& own, const Tensor& qkv) const {
  const int64_t rows = own.size(0);
  const int64_t queries = heads_ * head_width_;
  const int64_t held = shares_.key_rows.size();
  const int64_t most = CeilDiv(shares_.key_rows.whole, int64_t{axis_->size()});
  CopyHeads(ctx, Heads::Columns(own, 1, 0, 1, queries), Heads::Columns(qkv, 1, 0, 1, queries));
  const Tensor all = axis_->Arriving({axis_->size(), rows, 2 * most}, own.dtype());
  const auto of_rank = [&](int rank) {
    return all.Slice(rank, rank + 1).Reshape({rows, 2 * most});
  };
  const Tensor sent = of_rank(axis_->rank());
  for (const int64_t kind : {0, 1}) {
    CopyHeads(ctx, Heads::Columns(own, 1, queries + kind * held, 1, held),
              Heads::Columns(sent, 1, kind * most, 1, held));
  }
  axis_->AllGather(ctx, sent, all);
  ForEachKeyPart([&](int rank, int64_t there, int64_t here, int64_t count) {
    for (const int64_t kind : {0, 1}) {
      CopyHeads(ctx, Heads::Columns(of_rank(rank), 1, kind * most + there, 1, count),
                Heads::Columns(qkv, 1, queries + kind * head_width_ + here, 1, count));
    }
  });
}

void Attention::ExchangeKeysBackward(Context& ctx, const Tensor& dqkv, const Tensor& down) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t rows = down.size(0);
  const int64_t queries = heads_ * head_width_;
  const int64_t held = shares_.key_rows.size();
  const int64_t most = CeilDiv(shares_.key_rows.whole, int64_t{axis_->size()});
  CopyHeads(ctx, Heads::Columns(dqkv, 1, 0, 1, queries), Heads::Columns(down, 1, 0, 1, queries));
  const Shape shape{axis_->size(), rows, 2 * most};
  const Tensor sent = axis_->Departing(shape, down.dtype());
  const Tensor received = axis_->Arriving(shape, down.dtype());
  // Other ranks' heads get nothing from this one.
  SetZero(ctx, sent);
  ForEachKeyPart([&](int rank, int64_t there, int64_t here, int64_t count) {
    const Tensor to = sent.Slice(rank, rank + 1).Reshape({rows, 2 * most});
    for (const int64_t kind : {0, 1}) {
      CopyHeads(ctx, Heads::Columns(dqkv, 1, queries + kind * head_width_ + here, 1, count),
                Heads::Columns(to, 1, kind * most + there, 1, count));
    }
  });
  const Tensor sum = ctx.arena().Allocate({rows, 2 * most}, down.dtype(), "keys, values gradient");
  axis_->AllToAll(ctx, sent, received);
  SumRows(received, 1, Accumulate::kOverwrite, sum, ctx.compute());
  for (const int64_t kind : {0, 1}) {
    CopyHeads(ctx, Heads::Columns(sum, 1, kind * most, 1, held),
              Heads::Columns(down, 1, queries + kind * held, 1, held));
  }
}

void Attention::Project(Context& ctx, const ParameterStore& params, const Tensor& x,
                        const Tensor& qkv) const {
  if (!shares_.are_shared) {
    qkv_.Forward(ctx, params, x, qkv);
    return;
  }
  const Arena::Scope scope(ctx.arena());
  const Tensor own =
      ctx.arena().Allocate({x.size(0), qkv_.outputs()}, x.dtype(), "queries, part of keys, values");
  qkv_.Forward(ctx, params, x, own);
  ExchangeKeys(ctx, own, qkv);
}

void Attention::ProjectBackward(Context& ctx, const ParameterStore& params, const Tensor& dqkv,
                                const Tensor& x, Tensor dx, GradientSink& sink) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t rows = dqkv.size(0);
  Tensor down = dqkv;
  if (shares_.are_shared) {
    down = ctx.arena().Allocate({rows, qkv_.outputs()}, dqkv.dtype(),
                                "queries, part of keys, values gradient");
    ExchangeKeysBackward(ctx, dqkv, down);
  }
  qkv_.BackwardInput(ctx, params, down, axis_->Partial(ctx, dx, rows));
  axis_->BeginReduceScatter(ctx, dx);
  qkv_.BackwardWeights(ctx, params, down, axis_->GatheredAhead(ctx, x, rows), sink);
  axis_->EndReduceScatter(ctx, dx);
}

void Attention::Forward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                        const Tensor& x, Tensor y, const Saved& saved) const {
  const int64_t rows = saved.qkv.size(0);
  Project(ctx, params, axis_->Gather(ctx, x, rows), saved.qkv);
  const int64_t sequences = saved.lse.size(0);
  const RotaryTable table = rotary.Rows(0, saved.lse.size(2));
  const Projections heads = Split(saved.qkv, sequences);
  Rotate(ctx, Rotation::kForward, heads.q, table, heads.q);
  Rotate(ctx, Rotation::kForward, heads.k, table, heads.k);
  const AttentionBand band = Band(heads.q, heads.k, table, table);
  AttentionForward(ctx, {&band, 1}, heads.v, scale_,
                   Heads::Columns(saved.out, sequences, 0, heads_, head_width_), saved.lse);
  out_.Forward(ctx, params, saved.out, axis_->Partial(ctx, y, rows));
  axis_->ReduceScatter(ctx, y);
}

void Attention::Backward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                         const Tensor& dy, const Tensor& x, const Saved& saved, Tensor dx,
                         GradientSink& sink) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t sequences = saved.lse.size(0);
  const RotaryTable table = rotary.Rows(0, saved.lse.size(2));
  const Tensor all_dy = axis_->Gather(ctx, dy, saved.out.size(0));
  // Only now: what travels, travels in order.
  axis_->GatherAhead(ctx, x);
  out_.BackwardWeights(ctx, params, all_dy, saved.out, sink);
  const Tensor dout =
      ctx.arena().Allocate(saved.out.shape(), saved.out.dtype(), "attention output gradient");
  out_.BackwardInput(ctx, params, all_dy, dout);
  const Tensor dqkv =
      ctx.arena().Allocate(saved.qkv.shape(), saved.qkv.dtype(), "queries, keys, values gradient");
  const Projections heads = Split(saved.qkv, sequences);
  const Projections gradients = Split(dqkv, sequences);
  const AttentionBand band = Band(heads.q, heads.k, table, table);
  AttentionBackward(ctx, Heads::Columns(dout, sequences, 0, heads_, head_width_), {&band, 1},
                    heads.v, Heads::Columns(saved.out, sequences, 0, heads_, head_width_),
                    saved.lse, scale_, gradients.q, gradients.k, gradients.v);
  ProjectBackward(ctx, params, dqkv, x, dx, sink);
}

void Attention::Decode(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                       const Tensor& x, NewTokens tokens, const LayerCache& cache, Tensor y) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t rows = tokens.count;
  const int64_t position = tokens.position;
  const int64_t length = position + rows;
  const Saved scratch = Allocate(ctx, 1, rows, x.dtype());
  Project(ctx, params, axis_->Gather(ctx, x, rows), scratch.qkv);
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
  out_.Forward(ctx, params, scratch.out, axis_->Partial(ctx, y, rows));
  axis_->ReduceScatter(ctx, y);
}

}  // namespace panthera
