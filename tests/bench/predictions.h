#ifndef PANTHERA_TESTS_BENCH_PREDICTIONS_H_
#define PANTHERA_TESTS_BENCH_PREDICTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace panthera::bench {

// What a GPU is expected to reach, from a file like predictions.json beside this: written down
// before it is measured, so that a figure that is off shows.
struct Predictions {
  // The part of a kernel's floor time (bytes over the rate of a copy, operations over that of a
  // large product) in its time. The first entry whose shape begins the shape in question counts.
  struct Kernel {
    std::string kernel;
    std::string shape;
    double ratio;
  };
  // The part of peak_flops that a model's own arithmetic takes in training, and what is aimed at.
  struct Training {
    std::string model;
    double mfu;
    double goal_mfu;
  };

  std::string gpu;
  double peak_flops = 0;
  double copy_bytes_per_second = 0;
  double gemm_flops_per_second = 0;
  std::vector<Kernel> kernels;
  std::vector<Training> trainings;

  static absl::StatusOr<Predictions> Load(const std::string& path);

  std::optional<double> KernelRatio(const std::string& kernel, const std::string& shape) const;
  std::optional<Training> TrainingOf(const std::string& model) const;
};

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_PREDICTIONS_H_
