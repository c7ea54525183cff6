#ifndef PANTHERA_MODEL_LAYERS_NORM_H_
#define PANTHERA_MODEL_LAYERS_NORM_H_

#include <string>

#include "runtime/math/context.h"
#include "runtime/params/gradient_sink.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// RMSNorm with a gain per feature (ops/rmsnorm.h).
class Norm {
 public:
  // Registers the gain [width], which starts at one, in `group`.
  Norm(ParameterStore& params, GroupId group, std::string name, int64_t width, double epsilon);

  // y = norm(x).  x, y [N, width]; rstd [N] fp32 is kept for Backward.
  void Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y,
               Tensor rstd) const;
  // sum = x + branch; y = norm(sum).  `sum` may be x.
  void ForwardAdd(Context& ctx, const ParameterStore& params, const Tensor& x, const Tensor& branch,
                  Tensor sum, Tensor y, Tensor rstd) const;
  // dx = dresidual + dy through the norm, where x is the norm's input and dresidual the gradient
  // that reaches x past the norm. `dx` may be `dresidual`.
  void BackwardAdd(Context& ctx, const ParameterStore& params, const Tensor& dy, const Tensor& x,
                   const Tensor& rstd, const Tensor& dresidual, Tensor dx,
                   GradientSink& sink) const;
  // The same where nothing goes past the norm.
  void Backward(Context& ctx, const ParameterStore& params, const Tensor& dy, const Tensor& x,
                const Tensor& rstd, Tensor dx, GradientSink& sink) const;

 private:
  ParamId gain_;
  float epsilon_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_NORM_H_
