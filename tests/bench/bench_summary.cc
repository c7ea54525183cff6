// Prints what gpu_run.sh measured next to what was predicted:
//
//   bench_summary results.jsonl predictions.json
//
// A program and no script, because the machine that measures need have no interpreter.
#include <fstream>
#include <iostream>

#include "tests/bench/predictions.h"
#include "tests/bench/summary.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: bench_summary RESULTS PREDICTIONS" << std::endl;
    return 2;
  }
  std::ifstream results(argv[1]);
  if (!results) {
    std::cerr << "bench_summary: " << argv[1] << " cannot be read" << std::endl;
    return 2;
  }
  const absl::StatusOr<panthera::bench::Predictions> predictions =
      panthera::bench::Predictions::Load(argv[2]);
  if (!predictions.ok()) {
    std::cerr << "bench_summary: " << predictions.status().message() << std::endl;
    return 2;
  }
  std::cout << panthera::bench::Summarize(results, *predictions);
  return 0;
}
