#ifndef PANTHERA_MODEL_TRANSFORMER_H_
#define PANTHERA_MODEL_TRANSFORMER_H_

#include <optional>
#include <vector>

#include "model/key_value_cache.h"
#include "model/layers/block.h"
#include "model/layers/head.h"
#include "model/layers/norm.h"
#include "model/layers/tensor_axis.h"
#include "model/ops/embedding.h"
#include "model/options.h"
#include "runtime/math/context.h"
#include "runtime/params/gradient_sink.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// B sequences of T tokens and, for each token, the one that follows it: both [B, T] i32.
struct Batch {
  Tensor tokens;
  Tensor targets;
};

// The decoder-only language model: embedding, blocks, final norm, head.
//
// Under tensor parallelism every rank has its share of each layer (layers/tensor_axis.h), and all
// ranks that share the model make the same calls with the same batch.
//
// Groups of parameters, in the order of backward: the output matrix (if not tied), the blocks from
// last to first, the embedding table, the gains of all norms.
class Transformer {
 public:
  // Registers this rank's shares of all parameters. `options` must be finished.
  Transformer(const ModelOptions& options, const MeshAxes& axes, ParameterStore& params);
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // Allocates and fills the lookup tables, and allocates what travels between tensor-parallel ranks
  // for activations of `dtype` and batches of up to `rows` tokens. Once, before the first call
  // below.
  void Allocate(Device device, MemoryLedger& ledger, DType dtype, int64_t rows);
  // Memory for a sequence of up to `capacity_tokens`, for Decode.
  KeyValueCache MakeCache(Device device, MemoryLedger& ledger, DType dtype,
                          int64_t capacity_tokens) const;

  // losses[n] (fp32, [B*T], overwritten) of every target, and to the sink the gradient of
  // gradient_scale * sum(losses). Tells the sink when each group is complete.
  void LossAndGradient(Context& ctx, const ParameterStore& params, const Batch& batch,
                       float gradient_scale, Tensor losses, GradientSink& sink) const;
  // losses [B*T] fp32 and correct [B*T] i32 (1 where the target has the largest logit).
  void Loss(Context& ctx, const ParameterStore& params, const Batch& batch, Tensor losses,
            Tensor correct) const;
  // Appends `tokens` [n] i32 to the sequence in `cache` and writes the logits [1, V] that follow
  // the last of them.
  void Decode(Context& ctx, const ParameterStore& params, const Tensor& tokens,
              KeyValueCache& cache, Tensor logits) const;

  const ModelOptions& options() const { return options_; }
  ParamId embedding() const { return embedding_; }
  // This rank's rows of the embedding table.
  const Share& vocabulary() const { return vocabulary_; }

 private:
  struct Features;

  std::vector<Block> MakeBlocks(ParameterStore& params) const;
  std::optional<MatrixSlice> TableSlice() const;
  VocabularySlice slice() const { return {vocabulary_.begin, vocabulary_.whole}; }
  // What tensor-parallel ranks send at once, at most, for batches of up to `rows` tokens.
  int64_t TravelBytes(DType dtype, int64_t rows) const;
  // The rows of the embedding table, [m, C], this rank's of N, in the arena.
  Tensor Embed(Context& ctx, const ParameterStore& params, const Tensor& tokens) const;
  // All blocks and the final norm. With `saved`, keeps what Backward needs as the recompute option
  // says.
  Features Forward(Context& ctx, const ParameterStore& params, const Batch& batch) const;
  void BackwardBlocks(Context& ctx, const ParameterStore& params, const Batch& batch,
                      const Features& features, Tensor dx, GradientSink& sink) const;

  ModelOptions options_;
  // Enqueues communication; layers, which have no state of their own, refer to it.
  mutable TensorAxis axis_;
  Share vocabulary_;
  GroupId embedding_group_;
  GroupId gains_group_;
  ParamId embedding_;
  std::vector<Block> blocks_;
  Norm final_norm_;
  ParamId output_;
  Head head_;
  Buffer rotary_memory_;
  RotaryTable rotary_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_TRANSFORMER_H_
