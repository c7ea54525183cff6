#include "launcher/config_problems.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "runtime/base/one_line.h"

namespace panthera {

std::string SetFlag(const std::string& override_text) {
  return absl::StrCat("--set ", override_text);
}

ConfigProblems::ConfigProblems(std::string file, std::span<const std::string> overrides)
    : file_(std::move(file)) {
  for (const std::string& text : overrides) {
    flags_.push_back(SetFlag(text));
  }
}

void ConfigProblems::Add(const std::string* source, int64_t line, const std::string& text) {
  const auto flag =
      source == nullptr ? flags_.end() : std::find(flags_.begin(), flags_.end(), *source);
  if (flag != flags_.end()) {
    const auto index = static_cast<size_t>(flag - flags_.begin());
    problems_.push_back({index + 1, 0, OneLine(absl::StrCat(*flag, ": ", text))});
  } else {
    line = std::max<int64_t>(line, 1);
    problems_.push_back({0, line, OneLine(absl::StrCat(file_, ":", line, ": ", text))});
  }
}

absl::Status ConfigProblems::ToStatus() const {
  if (problems_.empty()) {
    return absl::OkStatus();
  }
  std::vector<Problem> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return std::tie(a.source, a.line) < std::tie(b.source, b.line);
  });
  return absl::InvalidArgumentError(absl::StrJoin(
      sorted, "\n", [](std::string* out, const Problem& problem) { out->append(problem.text); }));
}

}  // namespace panthera
