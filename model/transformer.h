#ifndef PANTHERA_MODEL_TRANSFORMER_H_
#define PANTHERA_MODEL_TRANSFORMER_H_

#include <vector>

#include "model/key_value_cache.h"
#include "model/layers/block.h"
#include "model/layers/head.h"
#include "model/layers/norm.h"
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
// Groups of parameters, in the order of backward: the output matrix (if not tied), the blocks from
// last to first, the embedding table, the gains of all norms.
class Transformer {
 public:
  // Registers all parameters. `options` must be finished.
  Transformer(const ModelOptions& options, ParameterStore& params);

  // Allocates and fills the lookup tables. Once, before the first call below.
  void Allocate(Device device, MemoryLedger& ledger);

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

 private:
  struct Features;

  std::vector<Block> MakeBlocks(ParameterStore& params) const;
  // The rows of the embedding table, [N, C], in the arena.
  Tensor Embed(Context& ctx, const ParameterStore& params, const Tensor& tokens) const;
  // All blocks and the final norm. With `saved`, keeps what Backward needs as the recompute option
  // says.
  Features Forward(Context& ctx, const ParameterStore& params, const Batch& batch) const;
  void BackwardBlocks(Context& ctx, const ParameterStore& params, const Batch& batch,
                      const Features& features, Tensor dx, GradientSink& sink) const;

  ModelOptions options_;
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
