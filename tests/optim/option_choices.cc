#include "tests/optim/option_choices.h"

#include <cstdint>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/fields.h"

namespace panthera::testing {
namespace {

// Visits only what is chosen from a list.
class ChoiceVisitor : public FieldVisitor {
 public:
  void Int(const FieldInfo& /*info*/, int64_t& /*value*/, IntRange /*range*/) override {}
  void Real(const FieldInfo& /*info*/, double& /*value*/, RealRange /*range*/) override {}
  void Text(const FieldInfo& /*info*/, std::string& /*value*/) override {}
  size_t BeginRecords(const FieldInfo& /*info*/, size_t count) override { return count; }
  void BeginRecord(size_t /*index*/) override {}
  void EndRecord() override {}
  void EndRecords() override {}
};

class ListChoices final : public ChoiceVisitor {
 public:
  void Choice(const FieldInfo& info, std::span<const char* const> names,
              size_t& /*index*/) override {
    this->names[info.name] = {names.begin(), names.end()};
  }

  std::map<std::string, std::vector<std::string>> names;
};

class SetChoices final : public ChoiceVisitor {
 public:
  explicit SetChoices(const Choices& values) : values_(values) {}
  void Choice(const FieldInfo& info, std::span<const char* const> /*names*/,
              size_t& index) override {
    const auto found = values_.find(info.name);
    if (found != values_.end()) {
      index = found->second;
    }
  }

 private:
  const Choices& values_;
};

}  // namespace

const std::map<std::string, std::vector<std::string>>& ChoiceNames() {
  static const auto* const kNames = [] {
    ListChoices list;
    OptimOptions().VisitFields(list);
    return new std::map<std::string, std::vector<std::string>>(std::move(list.names));
  }();
  return *kNames;
}

OptimOptions With(const Choices& choices, OptimOptions options) {
  SetChoices set(choices);
  options.VisitFields(set);
  return options;
}

OptimOptions FinishedWith(const Choices& choices) {
  OptimOptions options = With(choices);
  CHECK_OK(options.Finish());
  return options;
}

std::string Describe(const Choices& choices) {
  std::string text;
  for (const auto& [key, value] : choices) {
    absl::StrAppend(&text, key, "=", ChoiceNames().at(key)[value], " ");
  }
  return text;
}

std::vector<Choices> EveryCombination() {
  std::vector<Choices> combinations = {{}};
  for (const auto& [key, names] : ChoiceNames()) {
    std::vector<Choices> longer;
    for (const Choices& choices : combinations) {
      for (size_t value = 0; value < names.size(); ++value) {
        longer.push_back(choices);
        longer.back()[key] = value;
      }
    }
    combinations = std::move(longer);
  }
  return combinations;
}

std::vector<Choices> AllowedCombinations() {
  std::vector<Choices> allowed;
  for (const Choices& choices : EveryCombination()) {
    OptimOptions options = With(choices);
    if (options.nonfinite != NonFinitePolicy::kAuto && options.lazy_rows != LazyRows::kAuto &&
        options.Finish().ok()) {
      allowed.push_back(choices);
    }
  }
  return allowed;
}

}  // namespace panthera::testing
