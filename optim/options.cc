#include "optim/options.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

constexpr double kUnset = -1;
constexpr double kAdamWBeta1 = 0.9;
constexpr double kAdamWBeta2 = 0.95;

// Replaces kUnset by the default and refuses what is no decay rate.
absl::Status FinishBeta(const char* key, double default_value, double& beta) {
  if (beta == kUnset) {
    beta = default_value;
  }
  if (!(beta >= 0 && beta < 1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s = %g must be at least 0 and below 1, or -1 for the default %g", key,
                        beta, default_value));
  }
  return absl::OkStatus();
}

absl::Status FinishBetas(OptimOptions& options) {
  switch (options.algorithm) {
    case Algorithm::kTiger:
      if (options.beta2 != kUnset) {
        return absl::InvalidArgumentError(
            "optim.beta2 is not used by algorithm = \"tiger\", which has one decay: remove it and "
            "set optim.beta1");
      }
      return FinishBeta("optim.beta1", 0.965, options.beta1);
    case Algorithm::kLion:
      RETURN_IF_ERROR(FinishBeta("optim.beta1", 0.95, options.beta1));
      return FinishBeta("optim.beta2", 0.98, options.beta2);
    case Algorithm::kAdamW:
      RETURN_IF_ERROR(FinishBeta("optim.beta1", kAdamWBeta1, options.beta1));
      return FinishBeta("optim.beta2", kAdamWBeta2, options.beta2);
  }
  return absl::OkStatus();
}

absl::Status FinishTable(OptimOptions& options) {
  TableOptions& table = options.table;
  if (table.optimizer == TableOptimizer::kSame) {
    return absl::OkStatus();
  }
  if (options.algorithm == Algorithm::kAdamW) {
    return absl::InvalidArgumentError(
        "optim.table_optimizer = \"adamw\" gives the embedding table what algorithm = \"adamw\" "
        "gives it already: set optim.table_optimizer = \"same\", or optim.algorithm = \"tiger\" "
        "or \"lion\"");
  }
  RETURN_IF_ERROR(FinishBeta("optim.table_beta1", kAdamWBeta1, table.beta1));
  return FinishBeta("optim.table_beta2", kAdamWBeta2, table.beta2);
}

absl::Status FinishNonFinite(OptimOptions& options) {
  const bool folds = options.accumulate == Accumulation::kMomentum;
  if (options.nonfinite == NonFinitePolicy::kAuto) {
    options.nonfinite = folds ? NonFinitePolicy::kTiger : NonFinitePolicy::kSkip;
  }
  if (options.nonfinite == NonFinitePolicy::kSkip && folds) {
    return absl::InvalidArgumentError(
        "optim.nonfinite = \"skip\" needs the whole gradient before the momentum changes: set "
        "optim.accumulate = \"gradient\" or optim.nonfinite = \"tiger\"");
  }
  if (options.nonfinite == NonFinitePolicy::kTiger && !folds) {
    // Others than Tiger cannot fold.
    return absl::InvalidArgumentError(absl::StrCat(
        "optim.nonfinite = \"tiger\" leaves micro-gradients out of the momentum, but with "
        "optim.accumulate = \"gradient\" they are summed before: set optim.nonfinite = \"skip\"",
        options.algorithm == Algorithm::kTiger ? " or optim.accumulate = \"momentum\"" : ""));
  }
  if (options.shrink_ratio == 0) {
    return absl::InvalidArgumentError(
        "optim.shrink_ratio = 0 would make a matrix zero, from where it never moves: set it to "
        "0.99, or to 1 for no shrinking");
  }
  return absl::OkStatus();
}

absl::Status CheckLazyRows(const OptimOptions& options) {
  if (options.lazy_rows == LazyRows::kAuto || options.lazy_rows == LazyRows::kOff) {
    return absl::OkStatus();
  }
  if (options.ForTable().algorithm == Algorithm::kAdamW) {
    const bool is_own = options.table.optimizer == TableOptimizer::kAdamW;
    return absl::InvalidArgumentError(absl::StrFormat(
        "optim.lazy_rows = \"%s\" is for rules that go by the momentum's sign, and %s = \"adamw\" "
        "does not: set optim.lazy_rows = \"off\"%s",
        EnumName(options.lazy_rows), is_own ? "table_optimizer" : "algorithm",
        is_own ? " or optim.table_optimizer = \"same\"" : ""));
  }
  if (options.lazy_rows == LazyRows::kChangeAndState &&
      options.accumulate == Accumulation::kMomentum) {
    return absl::InvalidArgumentError(
        "optim.lazy_rows = \"change_and_state\" needs to know a step's tokens before the momentum "
        "changes, but optim.accumulate = \"momentum\" changes it with every micro-step: set "
        "optim.accumulate = \"gradient\" or optim.lazy_rows = \"change\"");
  }
  return absl::OkStatus();
}

absl::Status CheckPublish(const OptimOptions& options) {
  if (options.publish == PublishMode::kWeights) {
    return absl::OkStatus();
  }
  if (options.algorithm == Algorithm::kAdamW) {
    return absl::InvalidArgumentError(
        "optim.publish = \"direction\" sends the sign by which each weight moves, but the steps of "
        "algorithm = \"adamw\" have sizes of their own: set optim.publish = \"weights\", or "
        "optim.algorithm = \"tiger\" or \"lion\"");
  }
  if (options.weights == WeightStorage::kBf16PlusFp32) {
    return absl::InvalidArgumentError(
        "optim.publish = \"direction\" has every rank repeat the update of all weights, but with "
        "optim.weights = \"bf16+fp32\" a rank has the fp32 copy of its own part only: set "
        "optim.weights = \"bf16+8\" or optim.publish = \"weights\"");
  }
  return absl::OkStatus();
}

absl::Status CheckTableRms(const OptimOptions& options) {
  if (options.table_rms != TableRms::kRow && options.algorithm != Algorithm::kTiger) {
    return absl::InvalidArgumentError(
        absl::StrFormat("optim.table_rms = \"%s\" is for algorithm = \"tiger\", whose steps are "
                        "relative to an RMS; %s has none: set optim.table_rms = \"row\"",
                        EnumName(options.table_rms), EnumName(options.algorithm)));
  }
  if (options.table_rms != TableRms::kRow && options.table.optimizer == TableOptimizer::kAdamW) {
    return absl::InvalidArgumentError(
        "optim.table_rms = \"table\" is for a table that Tiger updates, but "
        "optim.table_optimizer = \"adamw\" takes it over: set optim.table_rms = \"row\" or "
        "optim.table_optimizer = \"same\"");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status OptimOptions::Finish() {
  RETURN_IF_ERROR(FinishBetas(*this));
  RETURN_IF_ERROR(FinishTable(*this));
  if (accumulate == Accumulation::kMomentum && algorithm != Algorithm::kTiger) {
    return absl::InvalidArgumentError(
        absl::StrFormat("optim.accumulate = \"momentum\" needs algorithm = \"tiger\", because %s "
                        "needs the averaged "
                        "gradient of all micro-steps at once: set optim.accumulate = \"gradient\"",
                        EnumName(algorithm)));
  }
  if (accumulate == Accumulation::kMomentum && clip_norm > 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "optim.clip_norm = %g needs the whole gradient before the momentum changes: set "
        "optim.accumulate = \"gradient\" or optim.clip_norm = 0",
        clip_norm));
  }
  if (ForTable().algorithm == Algorithm::kAdamW && epsilon == 0) {
    return absl::InvalidArgumentError(
        "optim.epsilon = 0 divides by zero where a gradient was always zero (unseen tokens): set "
        "optim.epsilon to a small number such as 1e-8");
  }
  RETURN_IF_ERROR(CheckLazyRows(*this));
  RETURN_IF_ERROR(CheckTableRms(*this));
  RETURN_IF_ERROR(CheckPublish(*this));
  return FinishNonFinite(*this);
}

OptimOptions OptimOptions::ForTable() const {
  OptimOptions options = *this;
  if (table.optimizer == TableOptimizer::kAdamW) {
    options.algorithm = Algorithm::kAdamW;
    options.learning_rate = table.learning_rate;
    options.weight_decay = table.weight_decay;
    options.beta1 = table.beta1;
    options.beta2 = table.beta2;
    options.lazy_rows = LazyRows::kOff;
    options.publish = PublishMode::kWeights;
  }
  return options;
}

}  // namespace panthera
