#ifndef PANTHERA_OPTIM_GRADIENT_FLAGS_H_
#define PANTHERA_OPTIM_GRADIENT_FLAGS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "optim/options.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Which logical tensors the optimizer must leave alone because their gradients are not finite: a
// flag and a count for each, the same on every rank. They lie in the device's memory, where the
// loops of fold and step read them (FoldInput, StepInput), so that nothing in a step waits for the
// host to look.
class GradientFlags {
 public:
  // The store must be allocated. With kStop there are no flags, and nothing is allocated.
  GradientFlags(NonFinitePolicy policy, Context& ctx, const ParameterStore& store, MeshAxes axes);

  // Begins an optimizer step: flags and counts are 0, for what ctx.compute() comes to from now on.
  void Clear();
  // For one micro-step of a group (kTiger): overwrites the flag of each of its tensors with whether
  // an element of sum_r contributions[r] is not finite, on any rank of the mesh, and adds the flag
  // to the tensor's count. The sum is in fp32 in rank order; if it overflows, that is not finite
  // either.
  //   contributions  [R, shard_elements], fp32 or bf16: each rank's gradient for this shard
  // Enqueued on `stream`. May block on the peers.
  void Mark(Stream& stream, GroupId group, const Tensor& contributions);

  // [params] u8 by ParamId::index; empty with kStop.
  const Tensor& flags() const { return flags_; }
  // [params] i32 by ParamId::index; empty but with kTiger.
  const Tensor& counts() const { return counts_; }

 private:
  // What cuda::MergeFlags does, on the CPU.
  void MergeFlags(std::span<const ParamId> params, const Tensor& gathered);

  Context& ctx_;
  const ParameterStore& store_;
  MeshAxes axes_;
  std::vector<int64_t> places_;  // by ParamId: a tensor's place in its group
  Buffer memory_;
  Tensor flags_;
  Tensor counts_;
  // Of one group: [tensor-parallel ranks, data-parallel ranks, its tensors] i32.
  Buffer gathered_;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_GRADIENT_FLAGS_H_
