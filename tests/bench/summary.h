#ifndef PANTHERA_TESTS_BENCH_SUMMARY_H_
#define PANTHERA_TESTS_BENCH_SUMMARY_H_

#include <istream>
#include <string>

#include "tests/bench/predictions.h"

namespace panthera::bench {

// Tables of what a run of gpu_run.sh measured next to what was predicted, from its lines of JSON:
//
//   stage     other fields
//   identity  any, shown as they are
//   status    name, exit, seconds: of a stage of the run
//   ceiling   kernel ("copy", "gemm"), gbytes_per_s or tflops
//   kernel    kernel, shape, seconds, predicted_ratio, measured_ratio, as kernel_bench writes them
//   torch     kernel, shape, mode, seconds: the same by PyTorch
//   train     as train_bench (program "panthera") and torch_train.py write them
//   check     name, passed, detail
//
// Ratios are measured over predicted; those off by more than 15 percent are marked. Lines of other
// stages are left out; lines that are not such JSON are counted.
std::string Summarize(std::istream& results, const Predictions& predictions);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_SUMMARY_H_
