#ifndef PANTHERA_MODEL_LAYERS_ATTENTION_H_
#define PANTHERA_MODEL_LAYERS_ATTENTION_H_

#include <string>

#include "model/layers/linear.h"
#include "model/ops/attention.h"
#include "model/ops/rope.h"
#include "model/options.h"

namespace panthera {

// Keys and values of the tokens already seen by one block, for generation. Views of memory that
// model/key_value_cache.h owns: [1, capacity, K, D].
struct LayerCache {
  Tensor keys;  // rotated
  Tensor values;
};

// Causal self-attention with grouped heads and rotary positions.
//
//   [q | k | v] = x Wqkv^T;  q, k rotated by position;  o = softmax(q k^T / sqrt(D), causal) v
//   y = o Wo^T
//
// Grouped heads: Ainslie et al., arXiv 2305.13245. Rotary positions: Su et al., arXiv 2104.09864.
class Attention {
 public:
  // What Backward needs. Lives in the arena.
  struct Saved {
    Tensor qkv;  // [N, (H + 2K) D], queries and keys rotated
    Tensor out;  // [N, H D]
    Tensor lse;  // [B, H, T] fp32
  };

  // `name` is the Hugging Face prefix, such as "model.layers.3.self_attn".
  Attention(ParameterStore& params, GroupId group, const std::string& name,
            const ModelOptions& options);

  Saved Allocate(Context& ctx, int64_t sequences, int64_t tokens, DType dtype) const;
  // x, y [B*T, C]; y overwritten. `rotary` has at least T positions.
  void Forward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
               const Tensor& x, Tensor y, const Saved& saved) const;
  // dx [B*T, C] overwritten.
  void Backward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                const Tensor& dy, const Tensor& x, const Saved& saved, Tensor dx,
                GradientSink& sink) const;
  // Forward for x [n, C], the tokens at positions [position, position + n) of one sequence whose
  // earlier keys and values are in `cache`; theirs are added to it.
  void Decode(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
              const Tensor& x, int64_t position, const LayerCache& cache, Tensor y) const;

 private:
  // The heads of each kind in a matrix [N, (H + 2K) D].
  struct Projections {
    Heads q;
    Heads k;
    Heads v;
  };
  Projections Split(const Tensor& qkv, int64_t sequences) const;
  AttentionBand Band(const Heads& q, const Heads& k, const RotaryTable& q_rotary,
                     const RotaryTable& k_rotary) const;

  int64_t heads_;
  int64_t kv_heads_;
  int64_t head_width_;
  int64_t window_;
  float scale_;
  Linear qkv_;
  Linear out_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_ATTENTION_H_
