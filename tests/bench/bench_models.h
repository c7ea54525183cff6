// The models that benchmarks train: fixed, so that figures of different days can be compared.
#ifndef PANTHERA_TESTS_BENCH_BENCH_MODELS_H_
#define PANTHERA_TESTS_BENCH_BENCH_MODELS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "launcher/run_options.h"

namespace panthera::bench {

// What a model trains on per step; 0 leaves the model's own.
struct StepShape {
  int64_t sequence_length = 0;
  int64_t sequences = 0;
  int64_t micro_batch = 0;
};

// A Llama-like model with Tiger:
//
//   10m, 124m   tied, 8,192 and 50,304 tokens in the vocabulary, 8 sequences of 512 tokens per step
//   1.3b, 7b    untied, 50,304 tokens, 16 and 8 sequences of 2,048 tokens per step
//
// An error names the models there are. Data and the run's directory are left to the caller.
absl::StatusOr<RunOptions> BenchModel(const std::string& name, const StepShape& step = {});

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_BENCH_MODELS_H_
