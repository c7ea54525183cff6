#ifndef PANTHERA_LAUNCHER_MODEL_INSTANCE_H_
#define PANTHERA_LAUNCHER_MODEL_INSTANCE_H_

#include <cstdint>
#include <memory>

#include "model/transformer.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// A model in memory: its parameters, its layers and what they compute with. Training adds gradients
// and an optimizer; evaluation and generation need no more.
class ModelInstance {
 public:
  // Allocates this rank's share of the parameters (zeroed) on the context's device, and what it
  // takes to run batches of up to `rows` tokens. The ledger of `context` and the communicators must
  // outlive the instance.
  ModelInstance(const ModelOptions& options, WeightStorage storage, const MeshAxes& axes,
                std::unique_ptr<Context> context, int64_t rows,
                LowBits low_bits = LowBits::kSharded);

  Context& context() { return *context_; }
  ParameterStore& params() { return params_; }
  const ParameterStore& params() const { return params_; }
  const Transformer& model() const { return model_; }
  // The type of activations.
  DType dtype() const { return dtype_; }

 private:
  DType dtype_;
  std::unique_ptr<Context> context_;
  ParameterStore params_;
  Transformer model_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_MODEL_INSTANCE_H_
