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

// What the input embedding looks like.
struct EmbeddingMeasures {
  double largest = 0;           // component, in magnitude
  double outliers = 0;          // components above a bound
  std::vector<double> squares;  // of each row, summed
};

// The table's measures, of the rows of all ranks in `host_tensor_parallel`, in which host memory
// travels; each of them must call it, and gets the same. The host waits for the device, and may
// block on the peers.
EmbeddingMeasures MeasureEmbedding(ModelInstance& instance, double outlier_bound,
                                   Communicator& host_tensor_parallel);

// Adds to `metrics` the largest component, the share of outliers, and the RMS of rows by class.
// `classes` has as many tokens as the table, whose rows are `width` long.
void AddTo(StepMetrics& metrics, const EmbeddingMeasures& measures, int64_t width,
           const TokenClasses& classes);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_EMBEDDING_ROWS_H_
