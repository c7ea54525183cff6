#include "launcher/save_staging.h"

#include "runtime/base/check.h"
#include "runtime/device/stream.h"

namespace panthera {
namespace {

// Where each tensor begins.
constexpr int64_t kAlignmentBytes = 64;

int64_t RoundUp(int64_t bytes) {
  return (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
}

}  // namespace

SaveStaging::SaveStaging(Context& ctx, const std::vector<SavedShard>& shards,
                         int64_t derived_bytes) {
  for (const SavedShard& shard : shards) {
    begins_.push_back(derived_begin_);
    derived_begin_ += RoundUp(shard.data.bytes());
  }
  const MemoryCategory category =
      ctx.target().is_cuda() ? MemoryCategory::kPinned : MemoryCategory::kCheckpoint;
  memory_ = Buffer::Pinned(ctx.device(), ctx.ledger(), category, kName,
                           derived_begin_ + RoundUp(derived_bytes));
}

std::vector<SavedShard> SaveStaging::CopyShards(Context& ctx,
                                                std::vector<SavedShard> shards) const {
  CHECK_EQ(shards.size(), begins_.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    const Tensor& data = shards[i].data;
    const Tensor copy = memory_.View(data.shape(), data.dtype(), begins_[i]);
    Copy(ctx.compute(), data, copy);
    shards[i].data = copy;
  }
  return shards;
}

Tensor SaveStaging::CopyDerived(Context& ctx, const Tensor& tensor) const {
  const Tensor copy = memory_.View(tensor.shape(), tensor.dtype(), derived_begin_);
  Copy(ctx.compute(), tensor, copy);
  return copy;
}

}  // namespace panthera
