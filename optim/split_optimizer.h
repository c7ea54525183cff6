#ifndef PANTHERA_OPTIM_SPLIT_OPTIMIZER_H_
#define PANTHERA_OPTIM_SPLIT_OPTIMIZER_H_

#include <memory>

#include "optim/optimizer.h"

namespace panthera {

// Two optimizers of one model: one for the group of the embedding table, one for all others
// (OptimOptions::table). Each has states of its own and does what it would do alone; the table's
// learning rate is StepInput::table_learning_rate.
class SplitOptimizer final : public Optimizer {
 public:
  // The parts together must have all groups of `store`, and none twice.
  SplitOptimizer(const OptimOptions& options, ParameterStore& store, MeshAxes axes,
                 std::unique_ptr<Optimizer> table, std::unique_ptr<Optimizer> others);

  void FoldGradient(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                    const FoldInput& input) override;
  void Step(Context& ctx, const StepInput& input) override;
  void Publish(Context& ctx) override;
  void ForEachState(StateVisitor visit) const override;

 private:
  std::unique_ptr<Optimizer> table_;
  std::unique_ptr<Optimizer> others_;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_SPLIT_OPTIMIZER_H_
