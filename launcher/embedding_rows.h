#ifndef PANTHERA_LAUNCHER_EMBEDDING_ROWS_H_
#define PANTHERA_LAUNCHER_EMBEDDING_ROWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "launcher/model_instance.h"
#include "runtime/metrics/step_metrics.h"

namespace panthera {

// The tokens of a vocabulary in classes by how often a text has them: class 0 never, class c >= 1
// from 2^(c-1) to 2^c - 1 times.
class TokenClasses {
 public:
  // counts[v] = how often the text has token v.
  explicit TokenClasses(std::span<const int64_t> counts);

  int64_t vocabulary() const { return static_cast<int64_t>(class_of_.size()); }
  // One more than the highest class of a token.
  int size() const { return size_; }
  int class_of(int64_t token) const { return class_of_[static_cast<size_t>(token)]; }
  // The least number of occurrences in a class.
  static int64_t CountFrom(int token_class) {
    return token_class == 0 ? 0 : int64_t{1} << (token_class - 1);
  }

 private:
  std::vector<uint8_t> class_of_;
  int size_ = 0;
};

// The RMS of rows by class, from their sums of squares over `width` elements; classes without
// tokens are left out.
std::vector<RowClassMetrics> RowRmsByClass(std::span<const double> squares, int64_t width,
                                           const TokenClasses& classes);

// Adds to `metrics` what the input embedding, which every rank holds whole, looks like: its largest
// component, the share of components above `outlier_bound` in magnitude, and the RMS of its rows by
// class. `classes` has as many tokens as the table rows. The host waits for the device.
void MeasureEmbedding(ModelInstance& instance, double outlier_bound, const TokenClasses& classes,
                      StepMetrics& metrics);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_EMBEDDING_ROWS_H_
