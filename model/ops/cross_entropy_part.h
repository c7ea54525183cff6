// What ranks that have different columns of the same logits tell each other about a row: layout and
// arithmetic of the parts of cross_entropy.h, for CPUs and GPUs alike.
#ifndef PANTHERA_MODEL_OPS_CROSS_ENTROPY_PART_H_
#define PANTHERA_MODEL_OPS_CROSS_ENTROPY_PART_H_

#include <cstdint>
#include <limits>

#include "model/ops/cross_entropy.h"
#include "runtime/base/host_device.h"

namespace panthera {

// `b` if it is larger; a NaN is not.
PANTHERA_HOST_DEVICE inline double LargerOf(double a, double b) { return b > a ? b : a; }

// Where a row's target lies beside the columns of a slice.
struct TargetPlace {
  int64_t before;  // as many columns have smaller tokens
  bool is_here;    // the target is the column after them
};
PANTHERA_HOST_DEVICE inline TargetPlace PlaceOf(int32_t target, int64_t first, int64_t columns) {
  const int64_t column = target - first;
  if (column < 0) {
    return {0, false};
  }
  return column < columns ? TargetPlace{column, true} : TargetPlace{columns, false};
}

// A row's part. What a rank does not have is -infinity, and adds 0 to the sum.
struct CrossEntropyPartOfRow {
  static constexpr double kNone = -std::numeric_limits<double>::infinity();

  double before = kNone;  // the largest logit of tokens smaller than the target
  double after = kNone;   // and of larger ones; NaNs are passed over in both
  double target = kNone;  // the target's logit
  double sum = 0;         // of exp(logit - Largest()) over all tokens but the target

  PANTHERA_HOST_DEVICE double Largest() const { return LargerOf(LargerOf(before, after), target); }

  PANTHERA_HOST_DEVICE static CrossEntropyPartOfRow Load(const double* place) {
    return {place[0], place[1], place[2], place[3]};
  }
  PANTHERA_HOST_DEVICE void Store(double* place) const {
    place[0] = before;
    place[1] = after;
    place[2] = target;
    place[3] = sum;
  }
};
static_assert(sizeof(CrossEntropyPartOfRow) == kCrossEntropyPart * sizeof(double));

// The parts of all ranks, [ranks, rows, kCrossEntropyPart].
struct CrossEntropyParts {
  const double* data;
  int64_t ranks;
  int64_t rows;

  PANTHERA_HOST_DEVICE CrossEntropyPartOfRow At(int64_t rank, int64_t row) const {
    return CrossEntropyPartOfRow::Load(data + (rank * rows + row) * kCrossEntropyPart);
  }
  // A row's logits on all ranks together, without their sum. The target is that of the one rank
  // that has it, also if it is NaN.
  PANTHERA_HOST_DEVICE CrossEntropyPartOfRow LogitsOf(int64_t row) const {
    CrossEntropyPartOfRow all;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const CrossEntropyPartOfRow part = At(rank, row);
      all.before = LargerOf(all.before, part.before);
      all.after = LargerOf(all.after, part.after);
      all.target = part.target == CrossEntropyPartOfRow::kNone ? all.target : part.target;
    }
    return all;
  }
  // Whether the target is the first of the largest. One of probability zero is not.
  PANTHERA_HOST_DEVICE bool TargetIsFirstLargest(int64_t row) const {
    const CrossEntropyPartOfRow all = LogitsOf(row);
    return all.before < all.target && all.after <= all.target;
  }
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_CROSS_ENTROPY_PART_H_
