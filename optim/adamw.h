#ifndef PANTHERA_OPTIM_ADAMW_H_
#define PANTHERA_OPTIM_ADAMW_H_

#include "optim/optimizer.h"
#include "optim/state_shards.h"

namespace panthera {

// AdamW (Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019), t = step + 1
// (steps that were left out count too):
//
//   m1    = beta1 * m1 + (1 - beta1) * g
//   m2    = beta2 * m2 + (1 - beta2) * g^2
//   u     = (m1 / (1 - beta1^t)) / (sqrt(m2 / (1 - beta2^t)) + epsilon)
//   theta = theta - learning_rate * (u + lambda * theta)
//
// with lambda = weight_decay for matrices and embeddings, 0 for gains and biases. optim.momentum
// names the storage of m1; m2 is fp32 always, because one step changes it by a fraction 1 - beta2
// that a bf16 may round away.
class AdamW final : public Optimizer {
 public:
  AdamW(const OptimOptions& options, Context& ctx, ParameterStore& store,
        Communicator& data_parallel);

  void Step(Context& ctx, const StepInput& input) override;
  void ForEachState(StateVisitor visit) const override;

 private:
  StateShards moment1_;
  StateShards moment2_;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_ADAMW_H_
