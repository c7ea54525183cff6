#include "model/layers/mlp.h"

#include <cmath>

#include "model/ops/swiglu.h"

namespace panthera {

Mlp::Mlp(ParameterStore& params, GroupId group, const std::string& name,
         const ModelOptions& options)
    : ffn_width_(options.ffn_width),
      gate_up_(params, group,
               {{name + ".gate_proj.weight", options.ffn_width},
                {name + ".up_proj.weight", options.ffn_width}},
               options.width, options.init_deviation, Op::kGateUp),
      down_(params, group, {{name + ".down_proj.weight", options.width}}, options.ffn_width,
            options.residual_init_deviation(), Op::kDown) {}

Mlp::Saved Mlp::Allocate(Context& ctx, int64_t rows, DType dtype) const {
  return {.gate_up = ctx.arena().Allocate({rows, 2 * ffn_width_}, dtype, "mlp gate and up"),
          .hidden = ctx.arena().Allocate({rows, ffn_width_}, dtype, "mlp hidden")};
}

void Mlp::Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y,
                  const Saved& saved) const {
  gate_up_.Forward(ctx, params, x, saved.gate_up);
  SwiGlu(ctx, saved.gate_up, saved.hidden);
  down_.Forward(ctx, params, saved.hidden, y);
}

void Mlp::Backward(Context& ctx, const ParameterStore& params, const Tensor& dy, const Tensor& x,
                   const Saved& saved, Tensor dx, GradientSink& sink) const {
  down_.BackwardWeights(ctx, params, dy, saved.hidden, sink);
  {
    const Arena::Scope scope(ctx.arena());
    const Tensor dhidden =
        ctx.arena().Allocate(saved.hidden.shape(), saved.hidden.dtype(), "mlp hidden gradient");
    down_.BackwardInput(ctx, params, dy, dhidden);
    SwiGluBackward(ctx, dhidden, saved.gate_up, saved.gate_up);
  }
  const Tensor& dgate_up = saved.gate_up;
  gate_up_.BackwardWeights(ctx, params, dgate_up, x, sink);
  gate_up_.BackwardInput(ctx, params, dgate_up, dx);
}

}  // namespace panthera
