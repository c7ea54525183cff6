#ifndef PANTHERA_MODEL_LAYERS_HEAD_H_
#define PANTHERA_MODEL_LAYERS_HEAD_H_

#include "model/layers/tensor_axis.h"
#include "model/ops/cross_entropy.h"
#include "model/options.h"
#include "runtime/math/context.h"
#include "runtime/math/gemm.h"
#include "runtime/params/gradient_sink.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// From final features to the loss: logits = h E^T, h the features as `tie` arranges them and E the
// output matrix [V, C] (the embedding table itself when tied). Logits of the whole batch never
// exist at once: rows are taken in chunks of ModelOptions::head_chunk_rows.
//
// Under tensor parallelism E is cut by rows, and no rank has all logits of any row: of each row the
// ranks exchange a few numbers (ops/cross_entropy.h). The c-th chunk is the c-th slice of every
// rank's rows. h and dh [m, C] are this rank's rows of N (TensorAxis); targets, losses and correct
// are of all rows, on every rank.
class Head {
 public:
  // `output` is the output matrix: the embedding table, or a matrix of the head's own. `axis` must
  // outlive the head.
  Head(ParamId output, TensorAxis& axis, const ModelOptions& options);

  // For each row of h, losses[n] = -log softmax(logits[n])[target[n]]. Writes the gradient
  // of gradient_scale * sum(losses) to dh (overwritten) and to the sink.
  //   targets [N] i32, losses [N] fp32
  void LossAndGradient(Context& ctx, const ParameterStore& params, const Tensor& h,
                       const Tensor& targets, float gradient_scale, Tensor losses, Tensor dh,
                       GradientSink& sink) const;
  // The losses alone, and whether the largest logit is the target's: correct [N] i32, 0 or 1.
  void Loss(Context& ctx, const ParameterStore& params, const Tensor& h, const Tensor& targets,
            Tensor losses, Tensor correct) const;
  // logits [1, V] of h [1, C], which every rank has. Overwritten.
  void Logits(Context& ctx, const ParameterStore& params, const Tensor& h, Tensor logits) const;

 private:
  // One chunk: rows [begin, end) of every rank's.
  struct Chunk {
    int64_t begin;
    int64_t end;
    Tensor x;        // [n, C] features of the chunk's rows; until the next call of the axis
    Tensor logits;   // [n, V], V this rank's tokens
    Tensor targets;  // [n] i32
    Tensor losses;   // [n] fp32, to be written; then StoreLosses
    Tensor parts;    // [t, n, kCrossEntropyPart] f64 of all ranks, with more than one
  };
  // Memory for the largest chunk, in the arena.
  struct ChunkMemory {
    Tensor logits;
    Tensor targets;
    Tensor losses;
    Tensor correct;
  };

  VocabularySlice slice() const { return {tokens_.begin, tokens_.whole}; }
  int64_t local_chunk_rows(int64_t local_rows) const;
  ChunkMemory Allocate(Context& ctx, int64_t local_rows, DType dtype) const;
  // Computes the logits of the chunk of `features` [m, C] that begins with row `begin` and, with
  // more than one rank, brings their parts together.
  Chunk Begin(Context& ctx, const Tensor& weights, const Tensor& features, const Tensor& targets,
              int64_t begin, const ChunkMemory& memory, const Tensor& losses) const;
  // Brings a chunk's losses to their places in `losses` [N].
  void StoreLosses(Context& ctx, const Chunk& chunk, const Tensor& losses) const;
  void CrossEntropyOf(Context& ctx, const Chunk& chunk, CrossEntropyOutput output,
                      float gradient_scale) const;
  // h as the output matrix sees it: h itself, or its halves exchanged in arena memory.
  Tensor Arranged(Context& ctx, const Tensor& h) const;

  ParamId output_;
  TensorAxis* axis_;
  Share tokens_;  // this rank's rows of the output matrix
  Tie tie_;
  int64_t chunk_rows_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_HEAD_H_
