#ifndef PANTHERA_RUNTIME_METRICS_STEP_METRICS_H_
#define PANTHERA_RUNTIME_METRICS_STEP_METRICS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"

namespace panthera {

// The rows of the input embedding whose tokens are about equally frequent.
struct RowClassMetrics {
  // How often each of the tokens is among the ids of the training text that were counted, all or,
  // of a large text, a sample (DataLoader::CountIds): from this to less than twice as often; 0:
  // never.
  int64_t tokens_from = 0;
  int64_t rows = 0;
  double rms = 0;          // over all components of all these rows
  double largest_rms = 0;  // of one row
};

// What one optimizer step reports, for the whole job. What a step did not measure is absent.
struct StepMetrics {
  int64_t step = 0;         // counted from 1: steps done
  int64_t total_steps = 0;  // of the whole run
  int64_t tokens = 0;       // trained on since the run began
  double loss_nats = 0;     // mean over the step's tokens
  std::optional<double> validation_loss_nats;
  double learning_rate = 0;
  std::optional<double> gradient_norm;
  // What was not finite in the step: whether it was left out as a whole, and how many
  // micro-gradients of single tensors were.
  bool skipped = false;
  int64_t masked_gradients = 0;
  double step_seconds = 0;
  double tokens_per_second = 0;  // of all ranks together
  // The model's floating-point operations per second over the rate of matrix products that the job
  // measured at its start.
  std::optional<double> gemm_share;
  int64_t bytes_sent = 0;  // by all ranks in this step
  // The largest absolute component of the input embedding: rare tokens' rows can grow to
  // 1 / weight_decay under sign-based optimizers.
  std::optional<double> embedding_max;
  // Which share of its components is above half of that in magnitude: outliers.
  std::optional<double> embedding_share;
  // Its rows by the frequency of their tokens, ascending; classes without tokens are left out.
  std::vector<RowClassMetrics> embedding_rows;
};

// Where steps are reported to.
class MetricsSink {
 public:
  MetricsSink() = default;
  MetricsSink(const MetricsSink&) = delete;
  MetricsSink& operator=(const MetricsSink&) = delete;
  virtual ~MetricsSink() = default;

  virtual absl::Status Report(const StepMetrics& metrics) = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_METRICS_STEP_METRICS_H_
