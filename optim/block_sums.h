#ifndef PANTHERA_OPTIM_BLOCK_SUMS_H_
#define PANTHERA_OPTIM_BLOCK_SUMS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

#include "optim/cuda_kernels.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Sums over logical tensors that have the same bits for every number of data-parallel ranks: each
// rank fills in one double for each block of its shards, one all-gather brings all of them to every
// data-parallel rank, and every rank adds them in index order. Where tensors are slices, one more
// all-gather brings each slice's sum to every tensor-parallel rank, which adds them in rank order;
// a replicated group's tensors are whole everywhere, and count once. The same bits on every rank of
// the mesh.
class BlockSums {
 public:
  // For the groups that `include` names; the store must be allocated. Memory is entered as
  // communication under `name`. The references must outlive this object.
  BlockSums(Context& ctx, const ParameterStore& store, MeshAxes axes, const std::string& name,
            absl::FunctionRef<bool(GroupId)> include);

  bool includes(GroupId id) const { return place(id).included; }
  // This rank's sums, one for each block of its shard of an included group: [blocks] double.
  Tensor local(GroupId id) const;
  // Once all ranks' sums are filled in: overwrites param_sums() with the sum of each logical
  // tensor's blocks, in double. Enqueued on `stream`; may block on the peers. On kMeta it counts
  // the traffic and computes nothing.
  void SumParams(Stream& stream);
  // [params] f64, by ParamId::index, in the memory of the device; 0 for groups that are not
  // included.
  const Tensor& param_sums() const { return param_sums_; }

 private:
  struct Place {
    bool included = false;
    GroupKind kind = GroupKind::kSharded;
    int64_t blocks = 0;  // of this rank's shard
    int64_t begin = 0;   // in a row of gathered_ (sharded) or in own_ (replicated)
  };

  const Place& place(GroupId id) const { return places_[static_cast<size_t>(id.index)]; }
  // Whether sums of slices have to be added.
  bool has_slices() const { return axes_.tensor_size() > 1 && row_ > 0; }
  void AddRuns();
  void AddSliceRuns();

  const ParameterStore& store_;
  MeshAxes axes_;
  std::vector<Place> places_;
  int64_t row_ = 0;
  Buffer gathered_;  // [data-parallel ranks, row_]
  Buffer own_;       // replicated groups: the same on every rank
  Buffer slices_;    // [tensor-parallel ranks, params], if has_slices()
  Buffer sums_memory_;
  Tensor param_sums_;
  // Of the parameters of included groups; empty on kMeta.
  std::vector<BlockRun> runs_;        // blocks of what this rank's tensor-parallel place has
  std::vector<BlockRun> slice_runs_;  // in slices_, a block for each tensor-parallel rank
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_BLOCK_SUMS_H_
