#ifndef PANTHERA_OPTIM_OPTIMIZER_H_
#define PANTHERA_OPTIM_OPTIMIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"

#include "optim/cuda_kernels.h"
#include "optim/direction_exchange.h"
#include "optim/options.h"
#include "optim/shard_blocks.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

enum class MicroStepPlace : uint8_t {
  kFirst,  // the first micro-step of an optimizer step
  kLater,
};

struct FoldInput {
  MicroStepPlace place = MicroStepPlace::kFirst;
  // What each rank's gradient counts: 1 / (micro-steps per step * ranks) makes their sum the mean.
  double weight = 1;
  // If given, [blocks of the shard] double: receives, for each block, the sum of squares of
  // sum_r contributions[r], without weight. kFirst overwrites, kLater adds.
  Tensor squares;
  // If given, [params] u8 by ParamId::index: the state of a parameter whose flag is not 0 keeps its
  // bits, as if it had no part in this micro-step, and its squares count as 0.
  Tensor left_out;
};

struct StepInput {
  // Steps of the run before this one, those that were left out included. AdamW's bias correction
  // and the random bits of rounding depend on it.
  int64_t step = 0;
  // Scheduled. Tiger: relative to the scale of each tensor; Lion, AdamW: absolute.
  double learning_rate = 0;
  // The same of the embedding table where OptimOptions::table gives it an optimizer of its own.
  double table_learning_rate = 0;
  // The mean gradient's shards, [shard_elements] fp32, by GroupId::index. Empty if gradients were
  // folded into the momentum.
  std::span<const Tensor> gradients;
  // If given, [1] fp32: multiplies the gradients; clipping.
  Tensor gradient_scale;
  // If given, [params] u8 by ParamId::index: weights and state of a parameter whose flag is not 0
  // keep their bits, but for `shrinks`.
  Tensor left_out;
  // If given, [params] i32 by ParamId::index: how often a parameter shrinks before it moves, as
  // Tiger says it.
  Tensor shrinks;
  // If given, [V] u8, one for each row of the embedding table (SeenRows): OptimOptions::lazy_rows,
  // which must ask for it, says what a row does whose flag is 0. `shrinks` acts on all rows.
  Tensor rows;
  // Another key, other roundings (bf16 and bf16+8 weights).
  uint64_t rounding_key = 0;
};

// Updates this rank's shards of the parameters in its groups. Owns the state: one or two tensors
// like each shard.
//
// All arithmetic is fp32, element by element, and sums go over the fixed blocks of ParameterStore:
// weights and state have the same bits for every number of threads and of data-parallel ranks,
// given equal gradients. State smaller than 2^-126 in magnitude is stored as 0: otherwise decaying
// momentum gets stuck at the bottom of the subnormal range, and its sign pushes rarely seen
// embedding rows for ever.
//
// Memory is allocated at construction. On kMeta nothing is computed.
class Optimizer {
 public:
  // Of the groups that `groups` lists, all others are left alone. The references must outlive the
  // optimizer; the store must be allocated.
  Optimizer(const OptimOptions& options, ParameterStore& store, MeshAxes axes,
            std::vector<GroupId> groups);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  // Adds the gradients of one micro-step to the momentum of a group's shard, or to what stands in
  // for it; with Accumulation::kMomentum. Enqueued on `stream`.
  //   contributions  [R, shard_elements], fp32 or bf16: each rank's gradient for this shard
  virtual void FoldGradient(Context& ctx, Stream& stream, GroupId group,
                            const Tensor& contributions, const FoldInput& input);

  // One step on its groups, enqueued on ctx.compute(). Writes this rank's shards only: Publish
  // follows. Tiger may block on the peers.
  virtual void Step(Context& ctx, const StepInput& input) = 0;

  // Brings what the last Step did to this rank's shards to every rank, as OptimOptions::publish
  // says; ParameterStore::AwaitPublished waits for it. Enqueued on ctx.exchange() behind the work
  // that ctx.compute() has so far. All groups of the store, also those of other optimizers, whose
  // weights then travel themselves. May block on the peers.
  virtual void Publish(Context& ctx);

  // Visits every state tensor: its name ("momentum", "moment1", "moment2"), the group, and this
  // rank's shard [shard_elements], fp32 or bf16. For checkpoints, which may write to it.
  using StateVisitor = absl::FunctionRef<void(const char* name, GroupId group, Tensor shard)>;
  virtual void ForEachState(StateVisitor visit) const = 0;

 protected:
  const OptimOptions& options() const { return options_; }
  const std::vector<GroupId>& groups() const { return groups_; }
  ParameterStore& store() const { return store_; }
  // optim.weight_decay for matrices and embeddings, 0 for gains and biases.
  float decay(ParamId id) const;
  // Where the random bits for rounding a parameter come from: stream step + 1 of the key
  // HashName(name, rounding_key). Stream 0 is left to initial values, whose key may be the same.
  RoundingBits rounding_bits(ParamId id, const StepInput& input) const;
  static uint64_t rounding_stream(const StepInput& input) {
    return static_cast<uint64_t>(input.step) + 1;
  }
  // The same and decay(), for kernels.
  cuda::ParamRule rule(ParamId id, const StepInput& input) const;
  // FoldGradient into a tensor like the group's shard, fp32 or bf16:
  //   state = (beta in the first micro-step, 1 in later ones) * state
  //           + (1 - beta) * input.weight * sum_r contributions[r]
  void FoldInto(Context& ctx, Stream& stream, GroupId group, const Tensor& contributions,
                double beta, const FoldInput& input, const Tensor& state) const;
  // How much StepInput::shrinks makes a parameter shrink before it moves; 1: it does not. On the
  // CPU.
  float shrink_factor(ParamId id, const Tensor& shrinks) const;
  // The stored values of part of a block, after shrinking. On the CPU.
  void ReadShrunk(const ShardBlock& block, const WeightShard& weights, float factor, int64_t offset,
                  int64_t count, float* theta) const;
  // Bytes of this rank's weights with all the precision that is stored, and of its state.
  double WeightBytes() const;
  double StateBytes() const;
  // Whether FoldInput::left_out or StepInput::left_out names a parameter. For row loops.
  static bool IsLeftOut(const Tensor& left_out, ParamId id) {
    return left_out.elements() > 0 && left_out.data<uint8_t>()[id.index] != 0;
  }
  // Whether a block is a row that StepInput::rows leaves out. For row loops.
  bool IsUnseen(const ShardBlock& block, const StepInput& input) const;
  // Whether the state of such rows keeps its bits.
  bool keeps_unseen_state() const { return options_.lazy_rows == LazyRows::kChangeAndState; }
  // That StepInput::rows may be given and fits the table.
  void CheckRows(const StepInput& input) const;
  // The value of FoldInput::scale or StepInput::gradient_scale; 1 if there is none. On the CPU.
  static float ScaleOf(const Tensor& scale) {
    return scale.elements() > 0 ? scale.data<float>()[0] : 1.0F;
  }
  // The gradient shard of a group for algorithms that need one.
  const Tensor& gradient(GroupId id, const StepInput& input) const;

  // Whether a group's step is decided in a message and applied from it, here and on other ranks.
  bool sends_directions(GroupId id) const {
    return directions_.has_value() && directions_->includes(id);
  }
  // For the constructors of algorithms that go by sign: with PublishMode::kDirection the sharded
  // ones of groups() send directions, with rates of this unit.
  void PrepareDirections(Context& ctx, absl::FunctionRef<RateUnit(GroupId)> rate_unit);
  // For groups that send directions: where to write this rank's message on ctx.compute(); then the
  // step that it tells of.
  DirectionMessage directions(Context& ctx, GroupId id) const {
    return directions_->own(id, ctx.compute());
  }
  void ApplyDirections(Context& ctx, GroupId id, const StepInput& input);

 private:
  OptimOptions options_;
  ParameterStore& store_;
  MeshAxes axes_;
  std::vector<GroupId> groups_;
  std::optional<DirectionExchange> directions_;
  // Of the last Step, what its random bits depend on.
  int64_t step_ = 0;
  uint64_t rounding_key_ = 0;
};

// Whether a group is the embedding table, which is alone in its group.
bool HoldsTable(const ParameterStore& store, GroupId group);
std::vector<GroupId> AllGroups(const ParameterStore& store);

// Of all groups. `options` must have been finished.
std::unique_ptr<Optimizer> CreateOptimizer(const OptimOptions& options, Context& ctx,
                                           ParameterStore& store, MeshAxes axes);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_OPTIMIZER_H_
