#ifndef PANTHERA_MODEL_LAYERS_HEAD_H_
#define PANTHERA_MODEL_LAYERS_HEAD_H_

#include "model/options.h"
#include "runtime/math/context.h"
#include "runtime/math/gemm.h"
#include "runtime/params/gradient_sink.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// From final features to the loss: logits = h E^T, h the features as `tie` arranges them and E the
// output matrix [V, C] (the embedding table itself when tied). Logits of the whole batch never
// exist at once: rows are taken in chunks of ModelOptions::head_chunk_rows.
class Head {
 public:
  // `output` is the output matrix: the embedding table, or a matrix of the head's own.
  Head(ParamId output, const ModelOptions& options);

  // For each row of h [N, C], losses[n] = -log softmax(logits[n])[target[n]]. Writes the gradient
  // of gradient_scale * sum(losses) to dh [N, C] (overwritten) and to the sink.
  //   targets [N] i32, losses [N] fp32
  void LossAndGradient(Context& ctx, const ParameterStore& params, const Tensor& h,
                       const Tensor& targets, float gradient_scale, Tensor losses, Tensor dh,
                       GradientSink& sink) const;
  // The losses alone, and whether the largest logit is the target's: correct [N] i32, 0 or 1.
  void Loss(Context& ctx, const ParameterStore& params, const Tensor& h, const Tensor& targets,
            Tensor losses, Tensor correct) const;
  // logits [n, V] of the rows of h [n, C]; for few rows.
  void Logits(Context& ctx, const ParameterStore& params, const Tensor& h, Tensor logits) const;

 private:
  // h as the output matrix sees it: h itself, or its halves exchanged in arena memory.
  Tensor Arranged(Context& ctx, const Tensor& h) const;

  ParamId output_;
  Tie tie_;
  int64_t vocab_size_;
  int64_t chunk_rows_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_HEAD_H_
