#ifndef PANTHERA_OPTIM_BLOCK_SUMS_H_
#define PANTHERA_OPTIM_BLOCK_SUMS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

#include "optim/cuda_kernels.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Sums over logical tensors that have the same bits for every number of data-parallel ranks: each
// rank fills in one double for each block of its shards, one all-gather brings all of them to every
// rank, and every rank adds them in index order.
class BlockSums {
 public:
  // For the groups that `include` names; the store must be allocated. Memory is entered as
  // communication under `name`.
  BlockSums(Context& ctx, const ParameterStore& store, Communicator& data_parallel,
            const std::string& name, absl::FunctionRef<bool(GroupId)> include);

  bool includes(GroupId id) const { return place(id).included; }
  // This rank's sums, one for each block of its shard of an included group: [blocks] double.
  Tensor local(GroupId id) const;
  // Brings the sums of sharded groups to every rank. May block on the peers.
  void Gather(Communicator& data_parallel, Stream& stream);

  // After Gather: the sum of each parameter's blocks, added in double by index. Enqueued on
  // `stream`; computes nothing on kMeta.
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
  void AddRuns(Device device);

  const ParameterStore& store_;
  std::vector<Place> places_;
  int rank_;
  int ranks_;
  int64_t row_ = 0;
  Buffer gathered_;  // [ranks, row_]
  Buffer own_;       // replicated groups: the same on every rank
  Buffer sums_memory_;
  Tensor param_sums_;
  std::vector<BlockRun> runs_;  // of the parameters of included groups; empty on kMeta
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_BLOCK_SUMS_H_
