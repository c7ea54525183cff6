#ifndef PANTHERA_MODEL_LAYERS_MLP_H_
#define PANTHERA_MODEL_LAYERS_MLP_H_

#include <string>

#include "model/layers/linear.h"
#include "model/options.h"

namespace panthera {

// The feed-forward layer: y = (silu(x Wg^T) * (x Wu^T)) Wd^T (SwiGLU, Shazeer, arXiv 2002.05202).
class Mlp {
 public:
  // What Backward needs. Lives in the arena.
  struct Saved {
    Tensor gate_up;  // [N, 2F], F this rank's share of hidden features
    Tensor hidden;   // [N, F]
  };

  // `name` is the Hugging Face prefix, such as "model.layers.3.mlp". `axis` must outlive the layer.
  Mlp(ParameterStore& params, GroupId group, TensorAxis& axis, const std::string& name,
      const ModelOptions& options);

  // For N = `rows` rows.
  Saved Allocate(Context& ctx, int64_t rows, DType dtype) const;
  // x, y [m, C], this rank's rows of N (TensorAxis); y overwritten.
  void Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y,
               const Saved& saved) const;
  // dy, x, dx [m, C]; dx overwritten. Uses saved.gate_up as scratch: its contents are lost.
  void Backward(Context& ctx, const ParameterStore& params, const Tensor& dy, const Tensor& x,
                const Saved& saved, Tensor dx, GradientSink& sink) const;

 private:
  TensorAxis* axis_;
  Share ffn_;
  Linear gate_up_;
  Linear down_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_MLP_H_
