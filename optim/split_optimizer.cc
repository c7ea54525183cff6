#include "optim/split_optimizer.h"

#include <utility>

namespace panthera {

SplitOptimizer::SplitOptimizer(const OptimOptions& options, ParameterStore& store, MeshAxes axes,
                               std::unique_ptr<Optimizer> table, std::unique_ptr<Optimizer> others)
    : Optimizer(options, store, axes, AllGroups(store)),
      table_(std::move(table)),
      others_(std::move(others)) {}

void SplitOptimizer::FoldGradient(Context& ctx, Stream& stream, GroupId group,
                                  const Tensor& contributions, const FoldInput& input) {
  Optimizer& part = HoldsTable(store(), group) ? *table_ : *others_;
  part.FoldGradient(ctx, stream, group, contributions, input);
}

void SplitOptimizer::Step(Context& ctx, const StepInput& input) {
  StepInput of_table = input;
  of_table.learning_rate = input.table_learning_rate;
  table_->Step(ctx, of_table);
  others_->Step(ctx, input);
}

void SplitOptimizer::Publish(Context& ctx) { others_->Publish(ctx); }

void SplitOptimizer::ForEachState(StateVisitor visit) const {
  table_->ForEachState(visit);
  others_->ForEachState(visit);
}

}  // namespace panthera
