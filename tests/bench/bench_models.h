// The models that benchmarks train: fixed, so that figures of different days can be compared.
#ifndef PANTHERA_TESTS_BENCH_BENCH_MODELS_H_
#define PANTHERA_TESTS_BENCH_BENCH_MODELS_H_

#include <string>

#include "absl/status/statusor.h"

#include "launcher/run_options.h"

namespace panthera::bench {

// "10m" (10.1 million parameters, 8,192 tokens in the vocabulary) or "124m" (124 million, 50,304):
// tied Llama-like models on 8 sequences of 512 tokens per step, with Tiger. An error names the
// models there are. Data and the run's directory are left to the caller.
absl::StatusOr<RunOptions> BenchModel(const std::string& name);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_BENCH_MODELS_H_
