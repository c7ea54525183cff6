#ifndef PANTHERA_OPTIM_TIGER_H_
#define PANTHERA_OPTIM_TIGER_H_

#include <vector>

#include "optim/block_sums.h"
#include "optim/optimizer.h"
#include "optim/shard_blocks.h"
#include "optim/state_shards.h"

namespace panthera {

// Tiger (Su Jianlin, "Tiger: a tight-fisted optimizer", https://kexue.fm/archives/9512, and the
// reference code https://github.com/bojone/tiger): the sign of the momentum is the step.
//
//   m     = beta * m + (1 - beta) * g
//   theta = theta - eta * (sign(m) + lambda * theta)          sign(0) = 0
//
// with beta = beta1 and, by kind of parameter,
//
//   gain, bias   eta = learning_rate / 2,                     lambda = 0
//   embedding    eta = learning_rate * RMS(row of theta),     lambda = weight_decay
//   matrix       eta = learning_rate * RMS(theta),            lambda = weight_decay
//
// RMS is the root of the mean square before the update, over the whole logical tensor or row. With
// table_rms = "table" an embedding has the rate of a matrix. A matrix of zeros has RMS 0 and never
// moves.
//
// The gradient enters linearly, so micro-steps fold into the momentum as they come: with weight w,
//   m = (beta in the first micro-step, 1 in later ones) * m + (1 - beta) * w * sum_r g_r.
//
// With nonfinite = "tiger" a micro-gradient that is not finite is left out, tensor by tensor, as in
// the reference code: the momentum keeps its bits (in the first micro-step it does not decay
// either), and where the last one is left out the tensor takes no step and no decay. For each of
// the n that were left out in a step the tensor shrinks towards its centre c (1 for gains, 0
// otherwise); here all of them act at the step, before RMS is taken:
//
//   theta = c + s^n * (theta - c)          s = shrink_ratio
//
// Rows that StepInput::rows leaves out take neither step nor decay, and with
// LazyRows::kChangeAndState their momentum keeps its bits. They shrink with the rest of the table:
// that is about the tensor whose gradient was not finite, not about tokens.
class Tiger final : public Optimizer {
 public:
  Tiger(const OptimOptions& options, Context& ctx, ParameterStore& store, MeshAxes axes,
        std::vector<GroupId> groups);

  void FoldGradient(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                    const FoldInput& input) override;
  // With gradients, folds them in the same pass. Blocks on the peers if any sharded group holds a
  // tensor that is scaled as a whole.
  void Step(Context& ctx, const StepInput& input) override;
  void ForEachState(StateVisitor visit) const override;

 private:
  // Fills in squares_ for the step's rates, after shrinking.
  void SumWeights(Context& ctx, const StepInput& input);
  // With a gradient (not empty) folds it into the momentum in the same pass.
  void UpdateGroup(Context& ctx, GroupId group, const Tensor& gradient, const StepInput& input);
  // All below is for the CPU.
  double BlockSquares(const ShardBlock& block, const WeightShard& weights, float factor) const;
  // Whether each row of a parameter has a rate of its own.
  bool scales_by_row(ParamId id) const {
    return options().table_rms == TableRms::kRow && store().spec(id).kind == ParamKind::kEmbedding;
  }
  // The rate of a block: its parameter's or, where rows have their own, its row's.
  float StepRate(const ShardBlock& block, const WeightShard& weights, float factor,
                 double learning_rate) const;
  // What a step does to a block.
  struct BlockPlan {
    bool moves = false;  // step and decay
    bool folds = false;  // the gradient goes into the momentum
    float factor = 1;    // of shrinking
  };
  BlockPlan PlanOf(const ShardBlock& block, const Tensor& gradient, const StepInput& input) const;
  // Folds part of a block's gradient into the momentum.
  void FoldChunk(const Tensor& momentum, const Tensor& gradient, const StepInput& input,
                 int64_t begin, int64_t count) const;
  void UpdateBlock(const ShardBlock& block, const WeightShard& weights, const Tensor& momentum,
                   const Tensor& gradient, const StepInput& input);
  // For groups that send directions, in place of the updates: write this rank's message.
  void DecideGroup(Context& ctx, GroupId group, const Tensor& gradient,
                   const StepInput& input) const;
  void DecideBlock(const DirectionMessage& message, const ShardBlock& block,
                   const WeightShard& weights, const Tensor& gradient,
                   const StepInput& input) const;
  void UpdateOnGpu(Context& ctx, GroupId group, const Tensor& gradient, const StepInput& input);

  StateShards momentum_;
  BlockSums squares_;  // of the weights in groups that hold tensors scaled as a whole
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_TIGER_H_
