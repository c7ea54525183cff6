#ifndef PANTHERA_MODEL_LAYERS_ATTENTION_H_
#define PANTHERA_MODEL_LAYERS_ATTENTION_H_

#include <string>

#include "model/layers/linear.h"
#include "model/ops/attention.h"
#include "model/ops/rope.h"
#include "model/options.h"

namespace panthera {

// Keys and values of the tokens already seen by one block, for generation. Views of memory that
// model/key_value_cache.h owns: [1, capacity, K, D], K this rank's heads (HeadShares).
struct LayerCache {
  Tensor keys;  // rotated
  Tensor values;
};

// The tokens at positions [position, position + count) of one sequence.
struct NewTokens {
  int64_t position;
  int64_t count;
};

// Which heads a tensor-parallel rank computes. Key/value heads go to the ranks with all query heads
// that they serve. If there are fewer of them than ranks, several ranks share one and divide its
// query heads; each then projects some of the features of keys and values, whichever they are, and
// the ranks exchange them. So every row of every matrix lies on one rank.
struct HeadShares {
  // `ranks` up to `heads`.
  HeadShares(const ModelOptions& options, int64_t ranks, int64_t rank);

  Share queries;    // heads, computed here
  Share keys;       // heads, computed here
  bool are_shared;  // keys: with other ranks
  Share key_rows;   // of the projections of keys and of values, held here
};

// Causal self-attention with grouped heads and rotary positions.
//
//   [q | k | v] = x Wqkv^T;  q, k rotated by position;  o = softmax(q k^T / sqrt(D), causal) v
//   y = o Wo^T
//
// Under tensor parallelism H and K are this rank's heads, and y a sum over ranks.
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

  // `name` is the Hugging Face prefix, such as "model.layers.3.self_attn". `axis` must outlive the
  // layer.
  Attention(ParameterStore& params, GroupId group, TensorAxis& axis, const std::string& name,
            const ModelOptions& options);

  Saved Allocate(Context& ctx, int64_t sequences, int64_t tokens, DType dtype) const;
  // x, y [m, C], this rank's rows of N = B*T (TensorAxis); y overwritten. `rotary` has at least T
  // positions.
  void Forward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
               const Tensor& x, Tensor y, const Saved& saved) const;
  // dy, x, dx [m, C]; dx overwritten.
  void Backward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                const Tensor& dy, const Tensor& x, const Saved& saved, Tensor dx,
                GradientSink& sink) const;
  // Forward for x [m, C], this rank's rows of `tokens` of one sequence whose earlier keys and
  // values are in `cache`; theirs are added to it.
  void Decode(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
              const Tensor& x, NewTokens tokens, const LayerCache& cache, Tensor y) const;

 private:
  // The heads of each kind in a matrix [N, (H + 2K) D].
  struct Projections {
    Heads q;
    Heads k;
    Heads v;
  };
  Projections Split(const Tensor& qkv, int64_t sequences) const;
  // qkv = x Wqkv^T of all rows, before rotation.  x [N, C]
  void Project(Context& ctx, const ParameterStore& params, const Tensor& x,
               const Tensor& qkv) const;
  // The gradients of Wqkv and of this rank's x, which is being gathered, from that of qkv.
  // dx [m, C], overwritten.
  void ProjectBackward(Context& ctx, const ParameterStore& params, const Tensor& dqkv,
                       const Tensor& x, Tensor dx, GradientSink& sink) const;
  // Where keys are shared: qkv from the features that every rank has projected.
  void ExchangeKeys(Context& ctx, const Tensor& own, const Tensor& qkv) const;
  // And the gradient of own from that of qkv: the sum over the ranks that share a head.
  void ExchangeKeysBackward(Context& ctx, const Tensor& dqkv, const Tensor& down) const;
  // Calls body(rank, first feature there, first feature of this rank's head, count) for the
  // features of its head that each rank holds.
  template <typename Body>
  void ForEachKeyPart(const Body& body) const;
  AttentionBand Band(const Heads& q, const Heads& k, const RotaryTable& q_rotary,
                     const RotaryTable& k_rotary) const;

  TensorAxis* axis_;
  HeadShares shares_;
  int64_t heads_;     // computed here
  int64_t kv_heads_;  // computed here
  int64_t head_width_;
  int64_t window_;
  float scale_;
  Linear qkv_;
  Linear out_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_ATTENTION_H_
