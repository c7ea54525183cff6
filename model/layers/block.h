#ifndef PANTHERA_MODEL_LAYERS_BLOCK_H_
#define PANTHERA_MODEL_LAYERS_BLOCK_H_

#include <string>

#include "model/layers/attention.h"
#include "model/layers/mlp.h"
#include "model/layers/norm.h"

namespace panthera {

// One transformer block with norms before its branches:
//
//   r = x + Attention(Norm1(x));  y = r + Mlp(Norm2(r))
class Block {
 public:
  // What Backward needs besides x. Lives in the arena.
  struct Saved {
    Tensor norm1;  // [m, C], this rank's rows (TensorAxis), as are those below
    Tensor rstd1;  // [m] fp32
    Attention::Saved attention;
    Tensor middle;  // r, [m, C]
    Tensor norm2;   // [m, C]
    Tensor rstd2;   // [m] fp32
    Mlp::Saved mlp;
  };

  // Registers this rank's shares of the block's matrices in `group` and its gains in `gains`.
  // `name` is the Hugging Face prefix, such as "model.layers.3". `axis` must outlive the block.
  Block(ParameterStore& params, GroupId group, GroupId gains, TensorAxis& axis,
        const std::string& name, const ModelOptions& options);

  GroupId group() const { return group_; }

  Saved Allocate(Context& ctx, int64_t sequences, int64_t tokens, DType dtype) const;
  // x, y [m, C], this rank's rows of N = sequences * tokens; y overwritten.
  void Forward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
               const Tensor& x, Tensor y, const Saved& saved) const;
  // On entry dy is the gradient of y, on return that of x. Destroys parts of `saved`.
  void Backward(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
                const Tensor& x, const Saved& saved, Tensor dy, GradientSink& sink) const;
  // Forward of `tokens` new tokens of one sequence (Attention::Decode); x, this rank's rows of
  // them, is overwritten with y.
  void Decode(Context& ctx, const ParameterStore& params, const RotaryTable& rotary,
              NewTokens tokens, const LayerCache& cache, Tensor x) const;

 private:
  GroupId group_;
  TensorAxis* axis_;
  int64_t width_;
  Norm norm1_;
  Attention attention_;
  Norm norm2_;
  Mlp mlp_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_BLOCK_H_
