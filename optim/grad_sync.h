#ifndef PANTHERA_OPTIM_GRAD_SYNC_H_
#define PANTHERA_OPTIM_GRAD_SYNC_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "optim/block_sums.h"
#include "optim/gradient_flags.h"
#include "optim/optimizer.h"
#include "optim/step_verdict.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/math/host_mirror.h"
#include "runtime/params/gradient_sink.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// What was not finite in an optimizer step; the same on every rank.
struct NonFiniteReport {
  bool found = false;    // anything: the loss, a gradient, or the gradient norm
  bool skipped = false;  // the step was left out; weights and state kept every bit
  // Micro-gradients, each of one tensor, that were left out of the momentum.
  int64_t masked_gradients = 0;
  // Those whose gradients, or the squares of them, were not finite, in order; may be none.
  std::vector<ParamId> tensors;
};

// What one optimizer step came to; the same on every rank.
struct StepReport {
  double loss_nats = 0;  // mean over all targets of the global batch, before the update
  // The Euclidean norm over all parameters, before clipping. With kGradient that of the mean
  // gradient over micro-steps and ranks. With kMomentum the root mean square, over micro-steps, of
  // the norm of each one's mean gradient over ranks: with k > 1 it is larger, because the noise of
  // micro-steps does not average out; what was left out counts as 0. The same bits for every number
  // of ranks given equal gradients.
  double gradient_norm = 0;
  NonFiniteReport nonfinite;
};

// Takes the gradients of a model's backward passes to the optimizer: holds them, exchanges them
// between data-parallel ranks when a group is complete, and sums them in fp32 in rank order.
//
//   for each of k micro-steps:
//     BeginMicroStep(i, k); backward pass through Target and GroupComplete; FinishMicroStep();
//   Judge(loss); optimizer.Step with gradient_shards(), gradient_scale(), left_out(), shrinks();
//   Report()
//
// Nothing before Report makes the host wait for a GPU. A group is exchanged and folded on
// ctx.exchange() while ctx.compute() goes on with the backward pass; what lies in its memory is
// overwritten only after that.
//
// Accumulation::kGradient: each rank adds its k gradients in one fp32 buffer of all parameters.
// During the last micro-step each complete group is exchanged, and the mean over micro-steps and
// ranks of this rank's shard ends in that buffer.
//
// Accumulation::kMomentum: gradients live in two slots, as large as the two largest sharded groups.
// A group holds one from its first Target to its GroupComplete, which exchanges it and folds it
// into the optimizer's momentum. A tied embedding table holds one through the whole backward pass,
// so other groups must complete one after the other.
//
// Replicated groups are small and have memory of their own. Gradients travel in the dtype of the
// group's values; a bf16 group is rounded once, to nearest, when it is sent. With one rank nothing
// is staged, rounded or copied. Padding is never part of a result.
//
// Tensor-parallel ranks: the gradient of a slice is complete on the rank that has the slice. What a
// rank adds to a replicated group is one term of a sum over the tensor axis, which is taken in fp32
// in rank order whenever the group is exchanged, before that. Losses are those of the samples, so
// tensor-parallel peers must judge by the same ones.
class GradSync final : public GradientSink {
 public:
  // `options` must have been finished. All references must outlive this object; `optimizer` is used
  // with kMomentum only. Allocates all memory.
  GradSync(const OptimOptions& options, Context& ctx, const ParameterStore& store, MeshAxes axes,
           Optimizer& optimizer);

  // Micro-step `micro`, counted from 0, of the `micro_steps` of an optimizer step.
  void BeginMicroStep(int64_t micro, int64_t micro_steps);
  // The first contribution of an optimizer step (kGradient) or micro-step (kMomentum) overwrites.
  GradientTarget Target(ParamId id) override;
  // Once per group and micro-step, in the same order on every rank. Parameters that no Target asked
  // for have gradient zero. May block on the peers.
  void GroupComplete(GroupId group) override;
  // All groups must be complete. After the last micro-step ctx.compute() waits for the exchanges.
  // May block on the peers.
  void FinishMicroStep();

  // The mean gradient's shard: [shard_elements] fp32. kGradient only; valid from the last
  // FinishMicroStep to the next BeginMicroStep.
  Tensor gradient_shard(GroupId id) const;
  // All of them by GroupId::index, as StepInput takes them; empty with kMomentum.
  std::span<const Tensor> gradient_shards() const { return shards_; }

  // Once between the last FinishMicroStep and the step: finds the global loss, the gradient norm
  // and the factor of clipping, and applies OptimOptions::nonfinite to the step. With kSkip
  // everything is left out unless loss and norm are finite; a norm whose squares overflow fp32 is
  // not. With kTiger micro-gradients have been left out one by one as they came. May block on the
  // peers.
  //   loss_sum  [1] f64: the sum over this rank's targets;  targets: of all ranks
  void Judge(const Tensor& loss_sum, int64_t targets);
  // What StepInput takes under these names.
  Tensor gradient_scale() const;  // [1] fp32
  const Tensor& left_out() const { return flags_.flags(); }
  const Tensor& shrinks() const { return flags_.counts(); }
  // What Judge found. Blocks until the device has come to it; an error if a peer is lost before.
  // Zeros on kMeta.
  absl::StatusOr<StepReport> Report();

 private:
  static constexpr int kNobody = -1;

  // Memory for one group's local gradient.
  struct Slot {
    Buffer buffer;
    Event released;        // after this it may be overwritten
    int holder = kNobody;  // GroupId::index
  };

  bool last_micro_step() const { return micro_ + 1 == micro_steps_; }
  static bool is_sharded(const GroupLayout& layout) { return layout.kind == GroupKind::kSharded; }
  void AllocateOwn();
  void AllocateSlots();
  void AllocateStaging();
  void AllocateTensorStaging();
  void AllocateVerdict();
  // Where this rank's gradient of a group lies: [elements] fp32. Claims a slot if need be.
  Tensor LocalGradient(GroupId id);
  Slot& ClaimSlot(GroupId id);
  // Lets others overwrite a group's local gradient once ctx.exchange() has come here.
  void Release(GroupId id);
  void ZeroUnwritten(GroupId id);
  // local = the sum of the tensor-parallel ranks' local gradients of a replicated group.
  void SumOverTensorAxis(Tensor local);
  // Every rank's gradient for this rank's shard: [ranks, shard_elements].
  Tensor Exchange(GroupId id, const Tensor& local);
  void ReduceIntoShard(GroupId id, const Tensor& local);
  void FoldIntoMomentum(GroupId id, const Tensor& local);
  // squares_ of block b of a gradient shard.
  void SumSquares(GroupId id, const Tensor& shard);

  const Accumulation accumulate_;
  const NonFinitePolicy nonfinite_;
  const double clip_norm_;
  Context& ctx_;
  const ParameterStore& store_;
  MeshAxes axes_;
  Optimizer& optimizer_;

  // By GroupId. With kMomentum the sharded groups' have no memory: they hold one of slots_.
  std::vector<Slot> own_;
  std::vector<Slot> slots_;
  std::vector<Event> written_out_;  // by GroupId: the backward pass has written the gradient
  Buffer send_;
  Buffer receive_;
  Buffer tensor_receive_;  // of a replicated group: [tensor-parallel ranks, elements] fp32
  std::vector<Tensor> shards_;
  BlockSums squares_;
  GradientFlags flags_;
  Buffer losses_;   // [R] f64
  Buffer verdict_;  // a StepVerdict
  Event judged_;
  HostMirror host_verdict_;
  HostMirror host_sums_;    // of squares, by ParamId
  HostMirror host_counts_;  // GradientFlags::counts()

  std::vector<bool> written_;   // by ParamId
  std::vector<bool> complete_;  // by GroupId
  int64_t micro_ = 0;
  int64_t micro_steps_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_GRAD_SYNC_H_
