#include "model/options.h"

#include "absl/strings/str_format.h"

namespace panthera {

absl::Status ModelOptions::Finish() {
  if (kv_heads == 0) {
    kv_heads = heads;
  }
  if (heads % kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model.heads = %d is not a multiple of model.kv_heads = %d; every key/value head serves "
        "equally many query heads, so use a divisor",
        heads, kv_heads));
  }
  if (head_width == 0) {
    if (width % heads != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.width = %d does not divide into model.heads = %d; change one of "
                          "them or set model.head_width",
                          width, heads));
    }
    // A run prints the value into its checkpoints, and must be able to read it there.
    if (width / heads > kLargestHeadWidth) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "model.width = %d makes heads of %d features with model.heads = %d, and at most %d are "
          "possible; raise model.heads or set model.head_width",
          width, width / heads, heads, kLargestHeadWidth));
    }
    head_width = width / heads;
  }
  if (head_width % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model.head_width = %d is odd; rotary positions turn pairs of features, so use %d or %d",
        head_width, head_width - 1, head_width + 1));
  }
  if (tie == Tie::kSwapHalves && width % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model.tie = \"swap_halves\" needs an even model.width, which is %d", width));
  }
  return absl::OkStatus();
}

}  // namespace panthera
