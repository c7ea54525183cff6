#ifndef PANTHERA_OPTIM_LION_H_
#define PANTHERA_OPTIM_LION_H_

#include <vector>

#include "optim/optimizer.h"
#include "optim/state_shards.h"

namespace panthera {

// Lion (Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023):
//
//   u     = sign(beta1 * m + (1 - beta1) * g)                 sign(0) = 0
//   theta = theta - learning_rate * (u + lambda * theta)
//   m     = beta2 * m + (1 - beta2) * g
//
// with lambda = weight_decay for matrices and embeddings, 0 for gains and biases. The sign needs
// the mean gradient of all micro-steps, so gradients cannot be folded into the momentum.
//
// Rows that StepInput::rows leaves out take neither step nor decay, and with
// LazyRows::kChangeAndState their momentum keeps its bits.
class Lion final : public Optimizer {
 public:
  Lion(const OptimOptions& options, Context& ctx, ParameterStore& store, MeshAxes axes,
       std::vector<GroupId> groups);

  void Step(Context& ctx, const StepInput& input) override;
  void ForEachState(StateVisitor visit) const override;

 private:
  // For groups that send directions: writes this rank's message and updates the momentum.
  void Decide(Context& ctx, GroupId group, const Tensor& gradients, const LionFactors& factors,
              const StepInput& input);

  StateShards momentum_;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_LION_H_
