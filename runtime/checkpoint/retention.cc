#include "runtime/checkpoint/retention.h"

namespace panthera {

std::vector<int64_t> StepsToRemove(std::span<const StoredCheckpoint> stored,
                                   const RetentionOptions& options) {
  std::vector<int64_t> remove;
  if (options.keep_newest == 0) {
    return remove;
  }
  int64_t num_valid = 0;
  bool found_finite = false;
  for (const StoredCheckpoint& checkpoint : stored) {
    const bool among_newest = checkpoint.valid ? num_valid < options.keep_newest : num_valid == 0;
    const bool newest_finite = checkpoint.valid && checkpoint.finite && !found_finite;
    const bool forever = options.keep_every > 0 && checkpoint.step % options.keep_every == 0;
    if (!among_newest && !newest_finite && !forever) {
      remove.push_back(checkpoint.step);
    }
    num_valid += checkpoint.valid ? 1 : 0;
    found_finite = found_finite || newest_finite;
  }
  return remove;
}

}  // namespace panthera
