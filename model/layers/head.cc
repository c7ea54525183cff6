#include "model/layers/head.h"

#include <algorithm>

#include "model/ops/cross_entropy.h"
#include "model/ops/swap_halves.h"
#include "runtime/math/op_times.h"

namespace panthera {
namespace {

// A product with the output matrix or of its gradient.
void Multiply(Context& ctx, OpPass pass, const Product& product) {
  const double inner = static_cast<double>(
      product.transpose_a == Transpose::kYes ? product.a.rows : product.a.columns);
  const OpTimer timer(
      ctx, {Op::kHead, pass},
      {.flops = 2 * inner * static_cast<double>(product.c.rows * product.c.columns)});
  Gemm(ctx, product);
}

}  // namespace

Head::Head(ParamId output, TensorAxis& axis, const ModelOptions& options)
    : output_(output),
      axis_(&axis),
      tokens_(axis.AlignedShareOf(options.vocab_size)),
      tie_(options.tie),
      chunk_rows_(options.head_chunk_rows) {}

int64_t Head::local_chunk_rows(int64_t local_rows) const {
  return std::min(local_rows, CeilDiv(chunk_rows_, int64_t{axis_->size()}));
}

Tensor Head::Arranged(Context& ctx, const Tensor& h) const {
  if (tie_ != Tie::kSwapHalves) {
    return h;
  }
  const Tensor swapped = ctx.arena().Allocate(h.shape(), h.dtype(), "head features swapped");
  SwapHalves(ctx, h, swapped);
  return swapped;
}

Head::ChunkMemory Head::Allocate(Context& ctx, int64_t local_rows, DType dtype) const {
  Arena& arena = ctx.arena();
  const int64_t rows = axis_->size() * local_chunk_rows(local_rows);
  ChunkMemory memory;
  memory.logits = arena.Allocate({rows, tokens_.size()}, dtype, "logits");
  if (axis_->size() > 1) {
    memory.targets = arena.Allocate({rows}, DType::kI32, "targets of a chunk");
    memory.losses = arena.Allocate({rows}, DType::kF32, "losses of a chunk");
    memory.correct = arena.Allocate({rows}, DType::kI32, "hits of a chunk");
  }
  return memory;
}

Head::Chunk Head::Begin(Context& ctx, const Tensor& weights, const Tensor& features,
                        const Tensor& targets, int64_t begin, const ChunkMemory& memory,
                        const Tensor& losses) const {
  const int64_t local_rows = features.size(0);
  const int64_t end = std::min(local_rows, begin + local_chunk_rows(local_rows));
  const int64_t rows = axis_->ChunkRows(targets.size(0), begin, end);
  Chunk chunk{begin, end, {}, memory.logits.Slice(0, rows), {}, {}, {}};
  if (axis_->size() > 1) {
    chunk.targets = memory.targets.Slice(0, rows);
    chunk.losses = memory.losses.Slice(0, rows);
    axis_->TakeChunk(ctx, targets, begin, end, chunk.targets);
  } else {
    chunk.targets = targets.Slice(begin, end);
    chunk.losses = losses.Slice(begin, end);
  }
  // Ahead, so that it outlives the sum of the gradients.
  const Tensor own_rows = features.Slice(begin, end);
  axis_->GatherAhead(ctx, own_rows);
  chunk.x = axis_->GatheredAhead(ctx, own_rows, rows);
  Multiply(
      ctx, OpPass::kForward,
      {Transpose::kNo, chunk.x, Transpose::kYes, weights, Accumulate::kOverwrite, chunk.logits});
  if (axis_->size() > 1) {
    const int rank = axis_->rank();
    chunk.parts = axis_->Departing({axis_->size(), rows, kCrossEntropyPart}, DType::kF64);
    const Tensor own = chunk.parts.Slice(rank, rank + 1);
    CrossEntropyPart(ctx, chunk.logits, slice(), tokens_.size(), chunk.targets,
                     own.Reshape({rows, kCrossEntropyPart}));
    axis_->AllGather(ctx, own, chunk.parts);
  }
  return chunk;
}

void Head::StoreLosses(Context& ctx, const Chunk& chunk, const Tensor& losses) const {
  if (axis_->size() > 1) {
    axis_->PutChunk(ctx, chunk.losses, chunk.begin, chunk.end, losses);
  }
}

void Head::CrossEntropyOf(Context& ctx, const Chunk& chunk, CrossEntropyOutput output,
                          float gradient_scale) const {
  if (axis_->size() == 1) {
    CrossEntropy(ctx, chunk.logits, tokens_.size(), chunk.targets, output, gradient_scale,
                 chunk.losses);
  } else {
    CrossEntropyFromParts(ctx, chunk.logits, slice(), tokens_.size(), chunk.targets, chunk.parts,
                          output, gradient_scale, chunk.losses);
  }
}

void Head::LossAndGradient(Context& ctx, const ParameterStore& params, const Tensor& h,
                           const Tensor& targets, float gradient_scale, Tensor losses, Tensor dh,
                           GradientSink& sink) const {
  params.AwaitPublished(params.group_of(output_), ctx.compute());
  const Arena::Scope scope(ctx.arena());
  const Tensor weights = params.value(output_);
  const Tensor features = Arranged(ctx, h);
  const Tensor dfeatures =
      tie_ == Tie::kSwapHalves
          ? ctx.arena().Allocate(h.shape(), h.dtype(), "swapped head features gradient")
          : dh;
  const ChunkMemory memory = Allocate(ctx, h.size(0), h.dtype());
  for (int64_t begin = 0; begin < h.size(0); begin += local_chunk_rows(h.size(0))) {
    const Chunk chunk = Begin(ctx, weights, features, targets, begin, memory, losses);
    CrossEntropyOf(ctx, chunk, CrossEntropyOutput::kLossAndGradient, gradient_scale);
    StoreLosses(ctx, chunk, losses);
    const Tensor& dlogits = chunk.logits;
    const Tensor dx = dfeatures.Slice(chunk.begin, chunk.end);
    Multiply(ctx, OpPass::kBackward,
             {Transpose::kNo, dlogits, Transpose::kNo, weights, Accumulate::kOverwrite,
              axis_->Partial(ctx, dx, dlogits.size(0))});
    axis_->BeginReduceScatter(ctx, dx);
    const GradientTarget target = sink.Target(output_);
    Multiply(
        ctx, OpPass::kWeightGradient,
        {Transpose::kYes, dlogits, Transpose::kNo, chunk.x, target.accumulate, target.gradient});
    axis_->EndReduceScatter(ctx, dx);
  }
  if (tie_ == Tie::kSwapHalves) {
    SwapHalves(ctx, dfeatures, dh);
  }
}

void Head::Loss(Context& ctx, const ParameterStore& params, const Tensor& h, const Tensor& targets,
                Tensor losses, Tensor correct) const {
  params.AwaitPublished(params.group_of(output_), ctx.compute());
  const Arena::Scope scope(ctx.arena());
  const Tensor weights = params.value(output_);
  const Tensor features = Arranged(ctx, h);
  const ChunkMemory memory = Allocate(ctx, h.size(0), h.dtype());
  for (int64_t begin = 0; begin < h.size(0); begin += local_chunk_rows(h.size(0))) {
    const Chunk chunk = Begin(ctx, weights, features, targets, begin, memory, losses);
    if (axis_->size() == 1) {
      TopOne(ctx, chunk.logits, tokens_.size(), chunk.targets,
             correct.Slice(chunk.begin, chunk.end));
    } else {
      const Tensor hits = memory.correct.Slice(0, chunk.losses.size(0));
      TopOneFromParts(ctx, chunk.parts, hits);
      axis_->PutChunk(ctx, hits, chunk.begin, chunk.end, correct);
    }
    CrossEntropyOf(ctx, chunk, CrossEntropyOutput::kLoss, 0);
    StoreLosses(ctx, chunk, losses);
  }
}

void Head::Logits(Context& ctx, const ParameterStore& params, const Tensor& h,
                  Tensor logits) const {
  CHECK_EQ(h.size(0), 1);
  params.AwaitPublished(params.group_of(output_), ctx.compute());
  const Arena::Scope scope(ctx.arena());
  const Tensor features = Arranged(ctx, h);
  const int ranks = axis_->size();
  const int64_t most = AlignedShareOf(tokens_.whole, ranks, 0).size();
  Tensor all = logits;
  Tensor own = logits;
  if (ranks > 1) {
    all = axis_->Departing({ranks, most}, logits.dtype());
    own = all.Slice(axis_->rank(), axis_->rank() + 1);
    own = own.Reshape({most}).Slice(0, tokens_.size()).Reshape({1, tokens_.size()});
  }
  Multiply(ctx, OpPass::kForward,
           {Transpose::kNo, features, Transpose::kYes, params.value(output_),
            Accumulate::kOverwrite, own});
  if (ranks == 1) {
    return;
  }
  axis_->AllGather(ctx, all.Slice(axis_->rank(), axis_->rank() + 1), all);
  const Tensor flat = logits.Reshape({tokens_.whole});
  for (int rank = 0; rank < ranks; ++rank) {
    const Share its = AlignedShareOf(tokens_.whole, ranks, rank);
    Copy(ctx.compute(), all.Slice(rank, rank + 1).Reshape({most}).Slice(0, its.size()),
         flat.Slice(its.begin, its.end));
  }
}

}  // namespace panthera
