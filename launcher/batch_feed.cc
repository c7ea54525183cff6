#include "launcher/batch_feed.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

// Tokens and targets of the first `sequences` of memory [2, sequences of the feed, tokens].
Batch PartOf(const Tensor& memory, int64_t sequences) {
  const Shape shape{memory.size(1), memory.size(2)};
  return {.tokens = memory.Slice(0, 1).Reshape(shape).Slice(0, sequences),
          .targets = memory.Slice(1, 2).Reshape(shape).Slice(0, sequences)};
}

}  // namespace

BatchFeed::BatchFeed(Context& ctx, const std::string& name, int64_t sequences, int64_t tokens,
                     int64_t ahead)
    : sequences_(sequences), tokens_(tokens) {
  CHECK_GE(ahead, 1);
  const Shape shape{2, sequences, tokens};
  const int64_t bytes = shape.elements() * SizeOf(DType::kI32);
  device_memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kData, name, bytes);
  if (!ctx.target().is_cuda()) {
    return;
  }
  host_memory_ =
      Buffer::Pinned(ctx.device(), ctx.ledger(), MemoryCategory::kPinned, name, ahead * bytes);
  for (int64_t i = 0; i < ahead; ++i) {
    slots_.push_back({host_memory_.View(shape, DType::kI32, i * bytes), Event(ctx.device())});
  }
}

absl::StatusOr<Batch> BatchFeed::Load(Context& ctx, int64_t sequences, Fill fill) {
  CHECK_LE(sequences, sequences_);
  const Batch batch = PartOf(device_memory_.View({2, sequences_, tokens_}, DType::kI32), sequences);
  if (ctx.device().is_meta()) {
    return batch;
  }
  if (slots_.empty()) {
    RETURN_IF_ERROR(fill(batch.tokens, batch.targets));
    return batch;
  }
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  // Done long ago, if the owner waits for the device between rounds.
  if (!slot.copied.is_done()) {
    slot.copied.Synchronize();
  }
  const Batch staged = PartOf(slot.memory, sequences);
  RETURN_IF_ERROR(fill(staged.tokens, staged.targets));
  Copy(ctx.compute(), staged.tokens, batch.tokens);
  Copy(ctx.compute(), staged.targets, batch.targets);
  slot.copied.Record(ctx.compute());
  return batch;
}

}  // namespace panthera
