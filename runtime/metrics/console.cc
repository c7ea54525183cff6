#include "runtime/metrics/console.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace panthera {
namespace {

// The running mean gives a new step's time this weight: about the last 20 steps count.
constexpr double kNewestWeight = 0.05;

constexpr int kPatienceMilliseconds = 250;

std::string Loss(double nats) { return absl::StrFormat("%6.3f", nats); }

// A column of `width` characters with its name, or as many blanks.
std::string Column(const char* name, const std::optional<std::string>& value, size_t width) {
  if (!value.has_value()) {
    return std::string(width, ' ');
  }
  return absl::StrCat("  ", name, " ", *value);
}

std::optional<std::string> Formatted(const std::optional<double>& value,
                                     std::string (*format)(double)) {
  return value.has_value() ? std::optional(format(*value)) : std::nullopt;
}

}  // namespace

std::string FormatCount(double count) {
  if (!std::isfinite(count)) {
    return "-";
  }
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
  size_t unit = 0;
  // Below these bounds a number prints with three digits: 999.4 as "999", 999.5 as "1.00k".
  while (count >= 999.5 && unit + 1 < std::size(kUnits)) {
    count /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return absl::StrFormat("%.*f%s", decimals, count, kUnits[unit]);
}

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e12) {
    return "-";
  }
  const auto total = static_cast<int64_t>(std::llround(seconds));
  if (total < 60) {
    return absl::StrFormat("%ds", total);
  }
  if (total < 3600) {
    return absl::StrFormat("%dm%02ds", total / 60, total % 60);
  }
  if (total < 86400) {
    return absl::StrFormat("%dh%02dm", total / 3600, total % 3600 / 60);
  }
  return absl::StrFormat("%dd%02dh", total / 86400, total % 86400 / 3600);
}

std::string FormatRate(double rate) {
  if (rate == 0) {
    return "0.00e+0";
  }
  // printf writes at least two digits of exponent; one is enough for learning rates.
  std::string text = absl::StrFormat("%.2e", rate);
  const size_t exponent = text.find('e');
  if (exponent != std::string::npos && text.size() == exponent + 4 && text[exponent + 2] == '0') {
    text.erase(exponent + 2, 1);
  }
  return text;
}

std::string ConsoleLine(const StepMetrics& metrics, double seconds_left) {
  const std::string total = absl::StrCat(metrics.total_steps);
  std::string line =
      absl::StrFormat("step %*d/%s", static_cast<int>(total.size()), metrics.step, total);
  absl::StrAppend(&line, Column("loss", Loss(metrics.loss_nats), 0));
  absl::StrAppend(&line, Column("val", Formatted(metrics.validation_loss_nats, Loss), 12));
  absl::StrAppend(&line, Column("lr", FormatRate(metrics.learning_rate), 0));
  const auto norm = [](double value) { return absl::StrFormat("%6.2f", value); };
  absl::StrAppend(&line, Column("grad", Formatted(metrics.gradient_norm, norm), 13));
  absl::StrAppend(&line, absl::StrFormat("  %5s tok/s", FormatCount(metrics.tokens_per_second)));
  const auto percent = [](double value) { return absl::StrFormat("%3.0f%%", 100 * value); };
  absl::StrAppend(&line, Column("GEMM", Formatted(metrics.gemm_share, percent), 11));
  if (seconds_left >= 0) {
    absl::StrAppend(&line, "  eta ", FormatDuration(seconds_left));
  }
  if (metrics.skipped) {
    absl::StrAppend(&line, "  skipped");
  }
  if (metrics.masked_gradients > 0) {
    absl::StrAppend(&line, "  masked ", metrics.masked_gradients);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

bool ConsoleSink::CanWrite() const {
  if (descriptor_ == kNoDescriptor) {
    return true;
  }
  pollfd polled = {descriptor_, POLLOUT, 0};
  int ready = 0;
  do {
    ready = poll(&polled, 1, kPatienceMilliseconds);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

absl::Status ConsoleSink::Report(const StepMetrics& metrics) {
  // The first step of a run pays for warming up; it must not count for long.
  const double weight =
      std::max(kNewestWeight, num_reports_ < 2 ? 1.0 : 1.0 / static_cast<double>(num_reports_));
  mean_step_seconds_ += weight * (metrics.step_seconds - mean_step_seconds_);
  const bool due =
      num_reports_ == 0 || metrics.step % interval_ == 0 || metrics.step == metrics.total_steps ||
      metrics.validation_loss_nats.has_value() || metrics.skipped || metrics.masked_gradients > 0;
  ++num_reports_;
  if (due && CanWrite()) {
    const double steps_left = static_cast<double>(metrics.total_steps - metrics.step);
    out_ << ConsoleLine(metrics, steps_left * mean_step_seconds_) << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace panthera
