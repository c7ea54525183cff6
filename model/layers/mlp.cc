#include "model/layers/mlp.h"

#include <cmath>

#include "model/ops/swiglu.h"

namespace panthera {

Mlp::Mlp(ParameterStore& params, GroupId group, TensorAxis& axis, const std::string& name,
         const ModelOptions& options)
    : axis_(&axis),
      ffn_(axis.AlignedShareOf(options.ffn_width)),
      gate_up_(params, group,
               {{name + ".gate_proj.weight", ffn_}, {name + ".up_proj.weight", ffn_}},
               Share::All(options.width), options.init_deviation, Op::kGateUp),
      down_(params, group, {{name + ".down_proj.weight", Share::All(options.width)}}, ffn_,
            options.residual_init_deviation(), Op::kDown) {}

Mlp::Saved Mlp::Allocate(Context& ctx, int64_t rows, DType dtype) const {
  return {.gate_up = ctx.arena().Allocate({rows, 2 * ffn_.size()}, dtype, "mlp gate and up"),
          .hidden = ctx.arena().Allocate({rows, ffn_.size()}, dtype, "mlp hidden")};
}

void Mlp::Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y,
                  const Saved& saved) const {
  const int64_t rows = saved.hidden.size(0);
  gate_up_.Forward(ctx, params, axis_->Gather(ctx, x, rows), saved.gate_up);
  SwiGlu(ctx, saved.gate_up, saved.hidden);
  down_.Forward(ctx, params, saved.hidden, axis_->Partial(ctx, y, rows));
  axis_->ReduceScatter(ctx, y);
}

void Mlp::Backward(Context& ctx, const ParameterStore& params, const Tensor& dy, const Tensor& x,
                   const Saved& saved, Tensor dx, GradientSink& sink) const {
  const int64_t rows = saved.hidden.size(0);
  const Tensor all_dy = axis_->Gather(ctx, dy, rows);
  // Only now: what travels, travels in order.
  axis_->GatherAhead(ctx, x);
  down_.BackwardWeights(ctx, params, all_dy, saved.hidden, sink);
  {
    const Arena::Scope scope(ctx.arena());
    const Tensor dhidden =
        ctx.arena().Allocate(saved.hidden.shape(), saved.hidden.dtype(), "mlp hidden gradient");
    down_.BackwardInput(ctx, params, all_dy, dhidden);
    SwiGluBackward(ctx, dhidden, saved.gate_up, saved.gate_up);
  }
  const Tensor& dgate_up = saved.gate_up;
  gate_up_.BackwardInput(ctx, params, dgate_up, axis_->Partial(ctx, dx, rows));
  axis_->BeginReduceScatter(ctx, dx);
  gate_up_.BackwardWeights(ctx, params, dgate_up, axis_->GatheredAhead(ctx, x, rows), sink);
  axis_->EndReduceScatter(ctx, dx);
}

}  // namespace panthera
