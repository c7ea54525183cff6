#ifndef PANTHERA_RUNTIME_PARAMS_GRADIENT_SINK_H_
#define PANTHERA_RUNTIME_PARAMS_GRADIENT_SINK_H_

#include <optional>
#include <span>

#include "runtime/device/tensor.h"
#include "runtime/math/gemm.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Where a layer writes the gradient of one parameter: fp32, the parameter's logical shape. The
// layer must write every element, overwriting or adding as told.
struct GradientTarget {
  Tensor gradient;
  Accumulate accumulate;
};

// Receives parameter gradients from a model's backward pass. Whether memory is a full buffer or a
// scratch slot, and what happens to a complete group, is the receiver's business; the model knows
// neither optimizers nor ranks.
class GradientSink {
 public:
  virtual ~GradientSink() = default;

  // The place for the next contribution to a parameter's gradient. The first contribution
  // overwrites unless earlier micro-steps are kept; the following ones add.
  virtual GradientTarget Target(ParamId id) = 0;
  // Tells that every parameter of `group` has received all contributions of this backward pass.
  // May start communication.
  virtual void GroupComplete(GroupId group) = 0;
};

// One target for several parameters that ParameterStore::FusedRows joins, with all their rows. They
// must always be written together: a sink that would overwrite one and add to another is a bug.
GradientTarget FusedTarget(GradientSink& sink, std::span<const ParamId> ids);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_GRADIENT_SINK_H_
