#ifndef PANTHERA_RUNTIME_CHECKPOINT_RETENTION_H_
#define PANTHERA_RUNTIME_CHECKPOINT_RETENTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/fields.h"

namespace panthera {

struct RetentionOptions {
  int64_t keep_newest = 2;
  int64_t keep_every = 0;

  void VisitFields(FieldVisitor& visit) {
    visit.Int({"keep_newest", "how many of the newest checkpoints stay; 0: all"}, keep_newest, {});
    visit.Int({"keep_every", "checkpoints whose step is a multiple of this stay for ever; 0: none"},
              keep_every, {});
  }
};

struct StoredCheckpoint {
  int64_t step = 0;
  bool valid = false;   // its manifest is sound
  bool finite = false;  // all its values are finite
};

// The steps of the checkpoints that may go, newest first. `stored` is sorted newest first. What
// stays: the newest `keep_newest` valid ones, but at least one; every multiple of `keep_every`; and
// the newest valid one with finite values, to which a run that went astray can return. Invalid
// ones older than the newest valid one go, newer ones stay for inspection.
std::vector<int64_t> StepsToRemove(std::span<const StoredCheckpoint> stored,
                                   const RetentionOptions& options);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_RETENTION_H_
