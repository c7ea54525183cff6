#ifndef PANTHERA_LAUNCHER_BATCH_FEED_H_
#define PANTHERA_LAUNCHER_BATCH_FEED_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "model/transformer.h"
#include "runtime/device/buffer.h"
#include "runtime/device/stream.h"
#include "runtime/math/context.h"

namespace panthera {

// Brings batches from the host's memory to where the layers read them. On a GPU they are written to
// pinned memory and copied by ctx.compute(), behind the work on the batch before; elsewhere they
// are written in place.
class BatchFeed {
 public:
  // For batches of up to `sequences` sequences of `tokens` tokens; entered as data under `name`.
  // `ahead`: how many batches a GPU's stream may have before it before Load waits for it.
  BatchFeed(Context& ctx, const std::string& name, int64_t sequences, int64_t tokens,
            int64_t ahead);

  // Writes the tokens and the targets of a batch, both [sequences, tokens] i32 in host memory.
  using Fill = absl::FunctionRef<absl::Status(const Tensor& tokens, const Tensor& targets)>;
  // The next batch, for what ctx.compute() comes to from now on; it takes the place of the one
  // before. Errors are those of `fill`. On kMeta nothing is filled.
  absl::StatusOr<Batch> Load(Context& ctx, int64_t sequences, Fill fill);

  int64_t sequences() const { return sequences_; }

 private:
  struct Slot {
    Tensor memory;  // [2, sequences, tokens], on the host
    Event copied;
  };

  int64_t sequences_;
  int64_t tokens_;
  Buffer device_memory_;  // [2, sequences, tokens] i32: tokens, then targets
  Buffer host_memory_;
  std::vector<Slot> slots_;  // of a GPU
  size_t next_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_BATCH_FEED_H_
