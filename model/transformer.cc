#include "model/transformer.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace panthera {

// What the forward pass leaves for the backward pass, in arena memory.
struct Transformer::Features {
  std::vector<Tensor> inputs;       // x before each block and, last, after all: [m, C]
  std::vector<Block::Saved> saved;  // of each block; empty when blocks are recomputed
  Tensor rstd;                      // of the final norm, [m] fp32
  Tensor output;                    // after the final norm, [m, C]
};

Transformer::Transformer(const ModelOptions& options, const MeshAxes& axes, ParameterStore& params)
    : options_(options),
      axis_(axes),
      vocabulary_(axis_.AlignedShareOf(options.vocab_size)),
      embedding_group_(params.AddGroup("embedding", GroupKind::kSharded)),
      gains_group_(params.AddGroup("gains", GroupKind::kReplicated)),
      embedding_(params.Add(embedding_group_, {.name = "model.embed_tokens.weight",
                                               .shape = {vocabulary_.size(), options.width},
                                               .kind = ParamKind::kEmbedding,
                                               .init_mean = 0,
                                               .init_deviation = options.init_deviation,
                                               .slice = TableSlice()})),
      blocks_(MakeBlocks(params)),
      final_norm_(params, gains_group_, "model.norm.weight", options.width, options.norm_epsilon),
      output_(options.tie != Tie::kNone ? embedding_
                                        : params.Add(params.AddGroup("head", GroupKind::kSharded),
                                                     {.name = "lm_head.weight",
                                                      .shape = {vocabulary_.size(), options.width},
                                                      .kind = ParamKind::kMatrix,
                                                      .init_mean = 0,
                                                      .init_deviation = options.init_deviation,
                                                      .slice = TableSlice()})),
      head_(output_, axis_, options) {}

std::optional<MatrixSlice> Transformer::TableSlice() const {
  return SliceOf(vocabulary_, Share::All(options_.width));
}

std::vector<Block> Transformer::MakeBlocks(ParameterStore& params) const {
  std::vector<Block> blocks;
  for (int64_t layer = 0; layer < options_.layers; ++layer) {
    const GroupId group = params.AddGroup(absl::StrCat("block ", layer), GroupKind::kSharded);
    blocks.emplace_back(params, group, gains_group_, axis_, absl::StrCat("model.layers.", layer),
                        options_);
  }
  return blocks;
}

int64_t Transformer::TravelBytes(DType dtype, int64_t rows) const {
  const int64_t ranks = axis_.size();
  const int64_t all_rows = ranks * axis_.LocalRows(rows);
  const int64_t chunk_rows = std::min(all_rows, RoundUp(options_.head_chunk_rows, ranks));
  const int64_t key_features = options_.kv_heads * options_.head_width;
  const bool shares_keys = options_.kv_heads < ranks;
  return std::max(
      {all_rows * options_.width * SizeOf(dtype),
       shares_keys ? ranks * rows * 2 * CeilDiv(key_features, ranks) * SizeOf(dtype) : 0,
       ranks * chunk_rows * kCrossEntropyPart * SizeOf(DType::kF64),
       ranks * AlignedShareOf(options_.vocab_size, ranks, 0).size() * SizeOf(dtype)});
}

void Transformer::Allocate(Device device, MemoryLedger& ledger, DType dtype, int64_t rows) {
  axis_.Allocate(device, ledger, TravelBytes(dtype, rows));
  const Shape shape{options_.sequence_length, options_.head_width / 2};
  const int64_t bytes = shape.elements() * SizeOf(DType::kF32);
  rotary_memory_ = Buffer(device, ledger, MemoryCategory::kData, "rotary table", 2 * bytes);
  rotary_ = {.cos = rotary_memory_.View(shape, DType::kF32),
             .sin = rotary_memory_.View(shape, DType::kF32, bytes)};
  if (device.is_meta()) {
    return;
  }
  std::vector<float> angles(static_cast<size_t>(2 * shape.elements()));
  const RotaryTable host{.cos = {angles.data(), shape, DType::kF32, {}},
                         .sin = {angles.data() + shape.elements(), shape, DType::kF32, {}}};
  FillRotaryTable(0, 1, options_.rope_base, host);
  Stream stream(device);
  Copy(stream, host.cos, rotary_.cos);
  Copy(stream, host.sin, rotary_.sin);
  stream.Synchronize();
}

KeyValueCache Transformer::MakeCache(Device device, MemoryLedger& ledger, DType dtype,
                                     int64_t capacity_tokens) const {
  const HeadShares shares(options_, axis_.size(), axis_.rank());
  return {device, ledger, options_, shares.keys.size(), dtype, capacity_tokens};
}

Tensor Transformer::Embed(Context& ctx, const ParameterStore& params, const Tensor& tokens) const {
  params.AwaitPublished(embedding_group_, ctx.compute());
  const Tensor table = params.value(embedding_);
  const int64_t rows = tokens.elements();
  const int64_t local_rows = axis_.LocalRows(rows);
  const Tensor x =
      ctx.arena().Allocate({local_rows, options_.width}, table.dtype(), "embedded tokens");
  const int64_t all_rows = axis_.size() * local_rows;
  const Tensor partial = axis_.Partial(ctx, x, all_rows);
  EmbeddingForward(ctx, tokens.Reshape({rows}), table, slice(), partial.Slice(0, rows));
  // Padding must hold numbers that no norm makes infinite, so it repeats a row.
  for (int64_t row = rows; row < all_rows; ++row) {
    Copy(ctx.compute(), partial.Slice(0, 1), partial.Slice(row, row + 1));
  }
  axis_.ReduceScatter(ctx, x);
  return x;
}

Transformer::Features Transformer::Forward(Context& ctx, const ParameterStore& params,
                                           const Batch& batch) const {
  const int64_t sequences = batch.tokens.size(0);
  const int64_t tokens = batch.tokens.size(1);
  const DType dtype = params.value(embedding_).dtype();
  Arena& arena = ctx.arena();
  Features features;
  Tensor x = Embed(ctx, params, batch.tokens);
  for (const Block& block : blocks_) {
    const Tensor y = arena.Allocate(x.shape(), dtype, "block output");
    if (options_.recompute == Recompute::kNone) {
      features.saved.push_back(block.Allocate(ctx, sequences, tokens, dtype));
      block.Forward(ctx, params, rotary_, x, y, features.saved.back());
    } else {
      const Arena::Scope scope(arena);
      block.Forward(ctx, params, rotary_, x, y, block.Allocate(ctx, sequences, tokens, dtype));
    }
    features.inputs.push_back(x);
    x = y;
  }
  features.inputs.push_back(x);
  features.rstd = arena.Allocate({x.size(0)}, DType::kF32, "final norm scale");
  features.output = arena.Allocate(x.shape(), dtype, "final features");
  final_norm_.Forward(ctx, params, x, features.output, features.rstd);
  return features;
}

void Transformer::LossAndGradient(Context& ctx, const ParameterStore& params, const Batch& batch,
                                  float gradient_scale, Tensor losses, GradientSink& sink) const {
  const Arena::Scope scope(ctx.arena());
  const Features features = Forward(ctx, params, batch);
  const Tensor& x = features.inputs.back();
  const int64_t rows = batch.tokens.elements();
  const Tensor dx = ctx.arena().Allocate(x.shape(), x.dtype(), "residual gradient");
  {
    const Arena::Scope head_scope(ctx.arena());
    const Tensor doutput = ctx.arena().Allocate(x.shape(), x.dtype(), "final features gradient");
    head_.LossAndGradient(ctx, params, features.output, batch.targets.Reshape({rows}),
                          gradient_scale, losses, doutput, sink);
    if (output_ != embedding_) {
      sink.GroupComplete(params.group_of(output_));
    }
    final_norm_.Backward(ctx, params, doutput, x, features.rstd, dx, sink);
  }
  BackwardBlocks(ctx, params, batch, features, dx, sink);
  EmbeddingBackward(ctx, batch.tokens.Reshape({rows}), axis_.Gather(ctx, dx, rows), slice(),
                    sink.Target(embedding_));
  sink.GroupComplete(embedding_group_);
  sink.GroupComplete(gains_group_);
}

void Transformer::BackwardBlocks(Context& ctx, const ParameterStore& params, const Batch& batch,
                                 const Features& features, Tensor dx, GradientSink& sink) const {
  const int64_t sequences = batch.tokens.size(0);
  const int64_t tokens = batch.tokens.size(1);
  for (size_t layer = blocks_.size(); layer-- > 0;) {
    const Block& block = blocks_[layer];
    const Tensor& x = features.inputs[layer];
    if (options_.recompute == Recompute::kNone) {
      block.Backward(ctx, params, rotary_, x, features.saved[layer], dx, sink);
      continue;
    }
    const Arena::Scope scope(ctx.arena());
    const Block::Saved saved = block.Allocate(ctx, sequences, tokens, x.dtype());
    {
      const Arena::Scope output_scope(ctx.arena());
      const Tensor y = ctx.arena().Allocate(x.shape(), x.dtype(), "recomputed block output");
      block.Forward(ctx, params, rotary_, x, y, saved);
    }
    block.Backward(ctx, params, rotary_, x, saved, dx, sink);
  }
}

void Transformer::Loss(Context& ctx, const ParameterStore& params, const Batch& batch,
                       Tensor losses, Tensor correct) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t sequences = batch.tokens.size(0);
  const int64_t tokens = batch.tokens.size(1);
  const DType dtype = params.value(embedding_).dtype();
  const Tensor x = Embed(ctx, params, batch.tokens);
  for (const Block& block : blocks_) {
    const Arena::Scope block_scope(ctx.arena());
    block.Forward(ctx, params, rotary_, x, x, block.Allocate(ctx, sequences, tokens, dtype));
  }
  const Tensor rstd = ctx.arena().Allocate({x.size(0)}, DType::kF32, "final norm scale");
  const Tensor output = ctx.arena().Allocate(x.shape(), dtype, "final features");
  final_norm_.Forward(ctx, params, x, output, rstd);
  head_.Loss(ctx, params, output, batch.targets.Reshape({sequences * tokens}), losses, correct);
}

void Transformer::Decode(Context& ctx, const ParameterStore& params, const Tensor& tokens,
                         KeyValueCache& cache, Tensor logits) const {
  const Arena::Scope scope(ctx.arena());
  const int64_t rows = tokens.size(0);
  const int64_t position = cache.length();
  CHECK_LE(position + rows, options_.sequence_length);
  const Tensor x = Embed(ctx, params, tokens);
  cache.Extend(rows);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    blocks_[layer].Decode(ctx, params, rotary_, {position, rows},
                          cache.layer(static_cast<int64_t>(layer)), x);
  }
  const Tensor last = axis_.Gather(ctx, x, rows).Slice(rows - 1, rows);
  const Tensor rstd = ctx.arena().Allocate({1}, DType::kF32, "final norm scale");
  const Tensor output = ctx.arena().Allocate(last.shape(), last.dtype(), "final features");
  final_norm_.Forward(ctx, params, last, output, rstd);
  head_.Logits(ctx, params, output, logits);
}

}  // namespace panthera
