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

Head::Head(ParamId output, const ModelOptions& options)
    : output_(output),
      tie_(options.tie),
      vocab_size_(options.vocab_size),
      chunk_rows_(options.head_chunk_rows) {}

Tensor Head::Arranged(Context& ctx, const Tensor& h) const {
  if (tie_ != Tie::kSwapHalves) {
    return h;
  }
  const Tensor swapped = ctx.arena().Allocate(h.shape(), h.dtype(), "head features swapped");
  SwapHalves(ctx, h, swapped);
  return swapped;
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
  const int64_t rows = h.size(0);
  const int64_t chunk = std::min(rows, chunk_rows_);
  const Tensor buffer = ctx.arena().Allocate({chunk, vocab_size_}, h.dtype(), "logits");
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor logits = buffer.Slice(0, end - begin);
    const Tensor x = features.Slice(begin, end);
    Multiply(ctx, OpPass::kForward,
             {Transpose::kNo, x, Transpose::kYes, weights, Accumulate::kOverwrite, logits});
    CrossEntropy(ctx, logits, vocab_size_, targets.Slice(begin, end),
                 CrossEntropyOutput::kLossAndGradient, gradient_scale, losses.Slice(begin, end));
    const Tensor& dlogits = logits;
    Multiply(ctx, OpPass::kBackward,
             {Transpose::kNo, dlogits, Transpose::kNo, weights, Accumulate::kOverwrite,
              dfeatures.Slice(begin, end)});
    const GradientTarget target = sink.Target(output_);
    Multiply(ctx, OpPass::kWeightGradient,
             {Transpose::kYes, dlogits, Transpose::kNo, x, target.accumulate, target.gradient});
  }
  if (tie_ == Tie::kSwapHalves) {
    SwapHalves(ctx, dfeatures, dh);
  }
}

void Head::Loss(Context& ctx, const ParameterStore& params, const Tensor& h, const Tensor& targets,
                Tensor losses, Tensor correct) const {
  params.AwaitPublished(params.group_of(output_), ctx.compute());
  const Arena::Scope scope(ctx.arena());
  const Tensor features = Arranged(ctx, h);
  const int64_t rows = h.size(0);
  const int64_t chunk = std::min(rows, chunk_rows_);
  const Tensor buffer = ctx.arena().Allocate({chunk, vocab_size_}, h.dtype(), "logits");
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor logits = buffer.Slice(0, end - begin);
    Multiply(ctx, OpPass::kForward,
             {Transpose::kNo, features.Slice(begin, end), Transpose::kYes, params.value(output_),
              Accumulate::kOverwrite, logits});
    TopOne(ctx, logits, vocab_size_, targets.Slice(begin, end), correct.Slice(begin, end));
    CrossEntropy(ctx, logits, vocab_size_, targets.Slice(begin, end), CrossEntropyOutput::kLoss, 0,
                 losses.Slice(begin, end));
  }
}

void Head::Logits(Context& ctx, const ParameterStore& params, const Tensor& h,
                  Tensor logits) const {
  params.AwaitPublished(params.group_of(output_), ctx.compute());
  const Arena::Scope scope(ctx.arena());
  Multiply(ctx, OpPass::kForward,
           {Transpose::kNo, Arranged(ctx, h), Transpose::kYes, params.value(output_),
            Accumulate::kOverwrite, logits});
}

}  // namespace panthera
