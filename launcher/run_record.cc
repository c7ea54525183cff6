#include "launcher/run_record.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "launcher/config_file.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

using Json = nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double NumberOr(const Json& json, const char* key, double otherwise) {
  const auto value = json.find(key);
  return value != json.end() && value->is_number() ? value->get<double>() : otherwise;
}

int64_t IntegerOr(const Json& json, const char* key, int64_t otherwise) {
  const auto value = json.find(key);
  return value != json.end() && value->is_number_integer() ? value->get<int64_t>() : otherwise;
}

std::optional<double> Optional(const Json& json, const char* key) {
  const double value = NumberOr(json, key, kNan);
  return std::isnan(value) ? std::nullopt : std::optional<double>(value);
}

StepMetrics ReadStep(const Json& json) {
  StepMetrics metrics;
  metrics.step = json["step"].get<int64_t>();
  metrics.tokens = IntegerOr(json, "tokens", 0);
  metrics.loss_nats = NumberOr(json, "loss_nats", kNan);
  metrics.validation_loss_nats = Optional(json, "validation_loss_nats");
  metrics.learning_rate = NumberOr(json, "learning_rate", kNan);
  metrics.tokens_per_second = NumberOr(json, "tokens_per_second", kNan);
  metrics.embedding_max = Optional(json, "embedding_max");
  metrics.embedding_share = Optional(json, "embedding_share");
  const auto rows = json.find("embedding_rows");
  if (rows != json.end() && rows->is_array()) {
    for (const Json& row : *rows) {
      if (row.is_object()) {
        metrics.embedding_rows.push_back({.tokens_from = IntegerOr(row, "tokens_from", 0),
                                          .rows = IntegerOr(row, "rows", 0),
                                          .rms = NumberOr(row, "rms", kNan),
                                          .largest_rms = NumberOr(row, "largest_rms", kNan)});
      }
    }
  }
  return metrics;
}

// Of RunRecord `steps` and `damaged_lines`.
void ReadSteps(const std::string& text, RunRecord& run) {
  std::map<int64_t, StepMetrics> by_step;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const Json json = Json::parse(text.begin() + static_cast<ptrdiff_t>(begin),
                                  text.begin() + static_cast<ptrdiff_t>(end), nullptr,
                                  /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("step") && json["step"].is_number_integer()) {
      StepMetrics metrics = ReadStep(json);
      by_step.insert_or_assign(metrics.step, std::move(metrics));
    } else if (end < text.size()) {
      ++run.damaged_lines;
    }
    begin = end + 1;
  }
  for (auto& [step, metrics] : by_step) {
    run.steps.push_back(std::move(metrics));
  }
}

// The logarithm of r / (1 - lambda r), which grows by alpha a step under the law; without decay
// that of r.
double Logit(double r, double decay) { return std::log(r) - std::log1p(-decay * r); }

}  // namespace

absl::StatusOr<RunRecord> ReadRunRecord(FileSystem& files, const std::string& directory) {
  RunRecord run;
  const std::filesystem::path path =
      (std::filesystem::path(directory) / "").lexically_normal().parent_path();
  run.name = path.filename();
  run.group = path.parent_path().filename();
  run.parent = path.parent_path();
  const std::string config_path = directory + "/config.toml";
  const absl::StatusOr<std::string> config = ReadFile(files, config_path);
  if (absl::IsNotFound(config.status())) {
    return absl::NotFoundError(absl::StrCat("there is no ", config_path,
                                            "; give the train.run_dir of a run that has begun"));
  }
  RETURN_IF_ERROR(config.status());
  RETURN_IF_ERROR(ParseConfig(*config, config_path, {}, run.options));
  RETURN_IF_ERROR(run.options.model.Finish());
  RETURN_IF_ERROR(run.options.optim.Finish());
  ASSIGN_OR_RETURN(const std::string metrics, ReadFile(files, directory + "/metrics.jsonl"));
  ReadSteps(metrics, run);
  if (run.steps.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory, "/metrics.jsonl has no step yet; give a run that has begun"));
  }
  return run;
}

double FinalLoss(const RunRecord& run) {
  const size_t count = std::max<size_t>(1, run.steps.size() / 20);
  double sum = 0;
  for (size_t i = run.steps.size() - count; i < run.steps.size(); ++i) {
    sum += run.steps[i].loss_nats;
  }
  return sum / static_cast<double>(count);
}

std::optional<double> FinalValidationLoss(const RunRecord& run) {
  const auto found = std::find_if(run.steps.rbegin(), run.steps.rend(), [](const StepMetrics& m) {
    return m.validation_loss_nats.has_value();
  });
  return found == run.steps.rend() ? std::nullopt : found->validation_loss_nats;
}

const StepMetrics* LastEmbeddingReport(const RunRecord& run) {
  const auto found = std::find_if(run.steps.rbegin(), run.steps.rend(),
                                  [](const StepMetrics& m) { return !m.embedding_rows.empty(); });
  return found == run.steps.rend() ? nullptr : &*found;
}

std::vector<RowGrowth> LargestRows(const RunRecord& run) {
  std::vector<RowGrowth> growth;
  double summed_rate = 0;
  for (const StepMetrics& step : run.steps) {
    summed_rate += step.learning_rate;
    double largest = 0;
    for (const RowClassMetrics& rows : step.embedding_rows) {
      largest = rows.tokens_from > 0 ? std::max(largest, rows.largest_rms) : largest;
    }
    if (largest > 0) {
      growth.push_back({step.step, largest, summed_rate});
    }
  }
  return growth;
}

std::optional<double> GrowthAgainstTheLaw(const RunRecord& run) {
  if (run.options.optim.ForTable().algorithm != Algorithm::kTiger) {
    return std::nullopt;
  }
  const std::vector<RowGrowth> growth = LargestRows(run);
  const double decay = run.options.optim.ForTable().weight_decay;
  const auto first = std::find_if(growth.begin(), growth.end(), [&](const RowGrowth& g) {
    return g.largest_rms >= 2 * growth.front().largest_rms;
  });
  if (first == growth.end() || first->largest_rms * decay >= 0.9) {
    return std::nullopt;
  }
  const auto full = std::find_if(first, growth.end(),
                                 [&](const RowGrowth& g) { return g.largest_rms * decay >= 0.9; });
  // The last report below the end: there the logit is still well defined.
  const auto last = full - 1;
  if (last == first) {
    return std::nullopt;
  }
  return (Logit(last->largest_rms, decay) - Logit(first->largest_rms, decay)) /
         (last->summed_rate - first->summed_rate);
}

std::vector<double> RowLaw(const RunRecord& run) {
  const std::vector<RowGrowth> growth = LargestRows(run);
  const double decay = run.options.optim.ForTable().weight_decay;
  std::vector<double> law;
  for (const RowGrowth& g : growth) {
    const RowGrowth& start = growth.front();
    const double factor = std::exp(g.summed_rate - start.summed_rate);
    const double r = start.largest_rms;
    // The solution of the logistic equation; without decay, of exponential growth.
    law.push_back(r * factor / (1 + decay * r * (factor - 1)));
  }
  return law;
}

}  // namespace panthera
