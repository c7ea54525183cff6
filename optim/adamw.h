#ifndef PANTHERA_OPTIM_ADAMW_H_
#define PANTHERA_OPTIM_ADAMW_H_

#include <vector>

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
//
// The square needs the mean gradient g of all micro-steps at once. With Accumulation::kMomentum,
// which is for a table beside Tiger (OptimOptions::table), micro-steps fold into a shard of g in
// fp32, whose content one step does not hand on to the next:
//
//   g = (0 in the first micro-step, 1 in later ones) * g + w * sum_r g_r
//
// There, with nonfinite = "tiger", a micro-gradient that is left out counts as zero in g, and for
// each of them the tensor shrinks as Tiger's do; where the last one is left out the tensor takes no
// step and no decay, and its moments keep their bits.
class AdamW final : public Optimizer {
 public:
  AdamW(const OptimOptions& options, Context& ctx, ParameterStore& store, MeshAxes axes,
        std::vector<GroupId> groups);

  void FoldGradient(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                    const FoldInput& input) override;
  void Step(Context& ctx, const StepInput& input) override;
  void ForEachState(StateVisitor visit) const override;

 private:
  bool folds() const { return options().accumulate == Accumulation::kMomentum; }
  void UpdateBlock(const ShardBlock& block, const WeightShard& weights, const Tensor& gradient,
                   const AdamWFactors& factors, const StepInput& input);

  StateShards moment1_;
  StateShards moment2_;
  StateShards mean_gradient_;  // of no group with kGradient
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_ADAMW_H_
