#include "tests/bench/predictions.h"

#include <algorithm>
#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

namespace panthera::bench {

absl::StatusOr<Predictions> Predictions::Load(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, " cannot be read"));
  }
  // The JSON library reports what is missing by exceptions; this is where they end.
  try {
    const nlohmann::json json = nlohmann::json::parse(file);
    Predictions predictions;
    predictions.gpu = json.at("gpu");
    predictions.peak_flops = json.at("peak_flops");
    predictions.copy_bytes_per_second = json.at("copy_bytes_per_second");
    predictions.gemm_flops_per_second = json.at("gemm_flops_per_second");
    for (const nlohmann::json& entry : json.at("kernels")) {
      predictions.kernels.push_back(
          {entry.at("kernel"), entry.value("shape", std::string()), entry.at("ratio")});
    }
    for (const nlohmann::json& entry : json.at("training")) {
      predictions.trainings.push_back({entry.at("model"), entry.at("mfu"), entry.at("goal_mfu")});
    }
    return predictions;
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
}

std::optional<double> Predictions::KernelRatio(const std::string& kernel,
                                               const std::string& shape) const {
  const auto found = std::find_if(kernels.begin(), kernels.end(), [&](const Kernel& entry) {
    return entry.kernel == kernel && absl::StartsWith(shape, entry.shape);
  });
  return found == kernels.end() ? std::nullopt : std::optional(found->ratio);
}

std::optional<Predictions::Training> Predictions::TrainingOf(const std::string& model) const {
  const auto found = std::find_if(trainings.begin(), trainings.end(),
                                  [&](const Training& entry) { return entry.model == model; });
  return found == trainings.end() ? std::nullopt : std::optional(*found);
}

}  // namespace panthera::bench
