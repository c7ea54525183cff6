#include "tests/bench/summary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <nlohmann/json.hpp>

namespace panthera::bench {
namespace {

using Json = nlohmann::json;

constexpr double kSurprise = 0.15;

std::string Text(const Json& line, const char* key) {
  return line.contains(key) && line[key].is_string() ? line[key].get<std::string>() : std::string();
}

std::optional<double> Number(const Json& line, const char* key) {
  return line.contains(key) && line[key].is_number() ? std::optional(line[key].get<double>())
                                                     : std::nullopt;
}

// A cell of `width` columns: the number, or a dash.
std::string Cell(std::optional<double> value, int width, int digits) {
  return value.has_value() ? absl::StrFormat("%*.*f", width, digits, *value)
                           : absl::StrFormat("%*s", width, "-");
}

// Predicted, measured, and the second over the first.
std::string Cells(std::optional<double> predicted, std::optional<double> measured, int digits) {
  std::optional<double> ratio;
  if (predicted.has_value() && measured.has_value() && *predicted > 0) {
    ratio = *measured / *predicted;
  }
  const bool surprises = ratio.has_value() && std::abs(*ratio - 1) > kSurprise;
  return absl::StrCat(Cell(predicted, 10, digits), Cell(measured, 10, digits), Cell(ratio, 7, 2),
                      surprises ? " !" : "  ");
}

// The median of a list of numbers.
std::optional<double> Median(const Json& line, const char* key) {
  if (!line.contains(key) || !line[key].is_array() || line[key].empty()) {
    return std::nullopt;
  }
  std::vector<double> values = line[key];
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

class Summary {
 public:
  Summary(std::istream& results, const Predictions& predictions) : predictions_(predictions) {
    for (std::string text; std::getline(results, text);) {
      Json line = Json::parse(text, nullptr, false);
      if (line.is_object() && line.contains("stage") && line["stage"].is_string()) {
        const std::string stage = line["stage"];
        lines_[stage].push_back(std::move(line));
      } else if (!text.empty()) {
        ++unreadable_;
      }
    }
  }

  std::string Print() {
    Identity();
    Status();
    Ceilings();
    Kernels();
    Training();
    Checks();
    if (unreadable_ > 0) {
      absl::StrAppend(&text_, unreadable_, " lines could not be read\n");
    }
    return std::move(text_);
  }

 private:
  const std::vector<Json>& Lines(const char* stage) { return lines_[stage]; }

  void Head(const std::string& title) {
    absl::StrAppend(&text_, text_.empty() ? "" : "\n", title, "\n");
  }

  void Identity() {
    for (const Json& line : Lines("identity")) {
      for (const auto& [key, value] : line.items()) {
        if (key != "stage") {
          absl::StrAppend(&text_, key, ": ",
                          value.is_string() ? Text(line, key.c_str()) : value.dump(), "\n");
        }
      }
    }
  }

  void Status() {
    if (Lines("status").empty()) {
      return;
    }
    Head("stage                     result      seconds");
    for (const Json& line : Lines("status")) {
      const int code = static_cast<int>(Number(line, "exit").value_or(-1));
      const std::string result = code == 0     ? "done"
                                 : code == 77  ? "skipped"
                                 : code == 124 ? "TIMED OUT"
                                               : absl::StrCat("FAILED ", code);
      absl::StrAppendFormat(&text_, "%-24s  %-10s %s  %s\n", Text(line, "name"), result,
                            Cell(Number(line, "seconds"), 8, 1), Text(line, "detail"));
    }
  }

  // The best of what was measured.
  std::optional<double> Ceiling(const std::string& kernel, const char* key) {
    std::optional<double> best;
    for (const Json& line : Lines("ceiling")) {
      if (Text(line, "kernel") == kernel) {
        best = std::max(best, Number(line, key));
      }
    }
    return best;
  }

  void Ceilings() {
    if (Lines("ceiling").empty()) {
      return;
    }
    Head(absl::StrFormat("%-46s%10s%10s%7s", "ceiling", "predicted", "measured", "ratio"));
    absl::StrAppendFormat(
        &text_, "%-46s%s\n", "copy, GB/s",
        Cells(predictions_.copy_bytes_per_second / 1e9, Ceiling("copy", "gbytes_per_s"), 0));
    absl::StrAppendFormat(
        &text_, "%-46s%s\n", "product, TFLOP/s",
        Cells(predictions_.gemm_flops_per_second / 1e12, Ceiling("gemm", "tflops"), 0));
  }

  // Seconds of PyTorch for the same kernel and shape by mode.
  std::map<std::string, double> Torch(const Json& kernel) {
    std::map<std::string, double> modes;
    for (const Json& line : Lines("torch")) {
      const std::optional<double> seconds = Number(line, "seconds");
      if (Text(line, "kernel") == Text(kernel, "kernel") &&
          Text(line, "shape") == Text(kernel, "shape") && seconds.has_value()) {
        modes[Text(line, "mode")] = *seconds;
      }
    }
    return modes;
  }

  void Kernels() {
    if (Lines("kernel").empty()) {
      return;
    }
    Head(absl::StrFormat("%-22s%-24s%10s%10s%7s%11s%9s  %s", "kernel: part of floor", "shape",
                         "predicted", "measured", "ratio", "us", "rate", "times PyTorch's speed"));
    for (const Json& line : Lines("kernel")) {
      const std::optional<double> seconds = Number(line, "seconds");
      const std::optional<double> tflops = Number(line, "tflops");
      absl::StrAppendFormat(
          &text_, "%-22s%-24s%s%s%s %s ", Text(line, "kernel"), Text(line, "shape"),
          Cells(Number(line, "predicted_ratio"), Number(line, "measured_ratio"), 2),
          Cell(1e6 * seconds.value_or(0), 9, 1),
          tflops.has_value() ? Cell(tflops, 9, 0) : Cell(Number(line, "gbytes_per_s"), 9, 0),
          tflops.has_value() ? "TF/s" : "GB/s");
      for (const auto& [mode, torch_seconds] : Torch(line)) {
        if (seconds.value_or(0) > 0) {
          absl::StrAppendFormat(&text_, " %s %.2f", mode, torch_seconds / *seconds);
        }
      }
      const bool written = !line.contains("written") || line["written"] == true;
      absl::StrAppend(&text_, written ? "\n" : " NOT WRITTEN\n");
    }
  }

  void Training() {
    if (Lines("train").empty()) {
      return;
    }
    Head(absl::StrFormat("%-30s%10s%10s%7s%8s%11s%10s%9s", "training: part of peak", "predicted",
                         "measured", "ratio", "  goal", "of product", "tokens/s", "GiB"));
    const std::optional<double> product = Ceiling("gemm", "tflops");
    for (const Json& line : Lines("train")) {
      const std::string model = Text(line, "model");
      const std::optional<double> tokens = Number(line, "tokens_per_second");
      const std::optional<double> flops = Number(line, "flops_per_token");
      const std::optional<Predictions::Training> predicted = predictions_.TrainingOf(model);
      const bool ours = Text(line, "program") == "panthera";
      std::optional<double> mfu;
      std::optional<double> of_product;
      if (tokens.has_value() && flops.has_value()) {
        mfu = *tokens * *flops / predictions_.peak_flops;
        of_product = product.has_value() ? std::optional(*tokens * *flops / (*product * 1e12))
                                         : std::nullopt;
      }
      const auto expected = [&](double Predictions::Training::*value) {
        return ours && predicted.has_value() ? std::optional((*predicted).*value) : std::nullopt;
      };
      const std::optional<double> bytes =
          Number(line, line.contains("ledger_bytes") ? "ledger_bytes" : "peak_bytes");
      const int ranks = static_cast<int>(Number(line, "ranks").value_or(1));
      const std::string title = absl::StrCat(
          model, " ", ours ? "panthera" : Text(line, "program"), " ",
          ours ? absl::StrCat(ranks, ranks == 1 ? " rank" : " ranks") : Text(line, "mode"));
      absl::StrAppendFormat(&text_, "%-30s%s%s%s%s%s\n", title,
                            Cells(expected(&Predictions::Training::mfu), mfu, 3),
                            Cell(expected(&Predictions::Training::goal_mfu), 6, 2),
                            Cell(of_product, 11, 2), Cell(tokens, 10, 0),
                            Cell(bytes.has_value() ? std::optional(*bytes / 0x1p30) : bytes, 9, 1));
    }
    for (const Json& line : Lines("train")) {
      TrainingOps(line);
    }
  }

  // Where the time of a step goes.
  void TrainingOps(const Json& line) {
    const std::optional<double> step = Median(line, "step_seconds");
    if (!line.contains("ops") || !line["ops"].is_array() || !step.has_value()) {
      return;
    }
    const auto steps = static_cast<double>(line["step_seconds"].size());
    Head(absl::StrFormat("%s: %.1f ms per step   ms   share", Text(line, "model"), 1e3 * *step));
    double sum = 0;
    for (const Json& op : line["ops"]) {
      const double seconds = Number(op, "seconds").value_or(0) / steps;
      sum += seconds;
      absl::StrAppendFormat(&text_, "  %-28s%8.2f %6.1f %%\n", Text(op, "op"), 1e3 * seconds,
                            100 * seconds / *step);
    }
    absl::StrAppendFormat(&text_, "  %-28s%8.2f %6.1f %%\n", "between ops", 1e3 * (*step - sum),
                          100 * (*step - sum) / *step);
  }

  void Checks() {
    if (Lines("check").empty()) {
      return;
    }
    Head("check");
    for (const Json& line : Lines("check")) {
      const bool passed = line.contains("passed") && line["passed"] == true;
      absl::StrAppendFormat(&text_, "%-36s%s  %s\n", Text(line, "name"),
                            passed ? "passed" : "FAILED", Text(line, "detail"));
    }
  }

  const Predictions& predictions_;
  std::map<std::string, std::vector<Json>> lines_;
  int64_t unreadable_ = 0;
  std::string text_;
};

}  // namespace

std::string Summarize(std::istream& results, const Predictions& predictions) {
  return Summary(results, predictions).Print();
}

}  // namespace panthera::bench
