#ifndef PANTHERA_LAUNCHER_SAVE_STAGING_H_
#define PANTHERA_LAUNCHER_SAVE_STAGING_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/checkpoint/parameter_pieces.h"
#include "runtime/device/buffer.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// Host memory for a copy of everything that a checkpoint holds of this rank, from which it can be
// written while training changes the tensors. Entered in the ledger as kCheckpoint, or for a GPU as
// pinned memory, under kName.
class SaveStaging {
 public:
  static constexpr char kName[] = "checkpoint copy";

  // Room for `shards` and for a tensor of at most `derived_bytes`.
  SaveStaging(Context& ctx, const std::vector<SavedShard>& shards, int64_t derived_bytes);

  // Enqueues on ctx.compute() to copy `shards`, those of the constructor. The result is the same
  // shards in host memory, valid until the next call.
  std::vector<SavedShard> CopyShards(Context& ctx, std::vector<SavedShard> shards) const;
  // Likewise the tensor that is not kept between saves.
  Tensor CopyDerived(Context& ctx, const Tensor& tensor) const;

 private:
  std::vector<int64_t> begins_;  // of each shard, in bytes
  int64_t derived_begin_ = 0;
  Buffer memory_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_SAVE_STAGING_H_
