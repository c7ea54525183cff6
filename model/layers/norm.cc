#include "model/layers/norm.h"

#include <optional>
#include <utility>

#include "model/ops/rmsnorm.h"

namespace panthera {

Norm::Norm(ParameterStore& params, GroupId group, std::string name, int64_t width, double epsilon)
    : gain_(params.Add(group, {.name = std::move(name),
                               .shape = {width},
                               .kind = ParamKind::kGain,
                               .init_mean = 1,
                               .init_deviation = 0})),
      epsilon_(static_cast<float>(epsilon)) {}

void Norm::Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y,
                   Tensor rstd) const {
  RmsNorm(ctx, x, params.value(gain_), epsilon_, y, rstd);
}

void Norm::ForwardAdd(Context& ctx, const ParameterStore& params, const Tensor& x,
                      const Tensor& branch, Tensor sum, Tensor y, Tensor rstd) const {
  AddRmsNorm(ctx, x, branch, params.value(gain_), epsilon_, sum, y, rstd);
}

void Norm::BackwardAdd(Context& ctx, const ParameterStore& params, const Tensor& dy,
                       const Tensor& x, const Tensor& rstd, const Tensor& dresidual, Tensor dx,
                       GradientSink& sink) const {
  RmsNormBackward(ctx, dy, x, params.value(gain_), rstd, dresidual, dx, sink.Target(gain_));
}

void Norm::Backward(Context& ctx, const ParameterStore& params, const Tensor& dy, const Tensor& x,
                    const Tensor& rstd, Tensor dx, GradientSink& sink) const {
  RmsNormBackward(ctx, dy, x, params.value(gain_), rstd, std::nullopt, dx, sink.Target(gain_));
}

}  // namespace panthera
