#include "launcher/config_changes.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "absl/strings/str_cat.h"

#include "launcher/config_text.h"

namespace panthera {
namespace {

constexpr char kAbsent[] = "(absent)";

// Keys that may change when a run is resumed; one that ends in "." or "[" stands for all that begin
// so. Whatever is not here is refused, a field that is added to some component included.
constexpr std::string_view kMayChange[] = {
    "checkpoint.",
    "data.validation[",
    "device.",
    "eval.",
    "log.",
    "model.head_chunk_rows",
    "model.recompute",
    "optim.clip_norm",
    "optim.lazy_rows",
    "optim.learning_rate",
    "optim.momentum",
    "optim.nonfinite",
    "optim.publish",
    "optim.shrink_ratio",
    "optim.skip_budget",
    "optim.table_learning_rate",
    "optim.table_weight_decay",
    "optim.table_rms",
    "optim.weight_decay",
    "optim.weights",
    "parallel.",
    "schedule.",
    "train.check_every",
    "train.micro_batch",
    "train.run_dir",
    "train.stall_seconds",
    "train.steps",
};

bool MayChange(std::string_view key) {
  return std::any_of(std::begin(kMayChange), std::end(kMayChange), [key](std::string_view entry) {
    const bool is_prefix = entry.ends_with('.') || entry.ends_with('[');
    return is_prefix ? key.starts_with(entry) : key == entry;
  });
}

const ConfigField* FindField(const std::vector<ConfigField>& fields, const std::string& key) {
  const auto field = std::find_if(fields.begin(), fields.end(),
                                  [&key](const ConfigField& f) { return f.key == key; });
  return field == fields.end() ? nullptr : &*field;
}

}  // namespace

std::string ConfigChange::ToString() const {
  return absl::StrCat(key, ": ", before, " -> ", after);
}

std::vector<ConfigChange> CompareConfigs(const RunOptions& before, const RunOptions& after) {
  const std::vector<ConfigField> old_fields = ListFields(before);
  const std::vector<ConfigField> new_fields = ListFields(after);
  std::vector<ConfigChange> changes;
  for (const ConfigField& field : old_fields) {
    const ConfigField* match = FindField(new_fields, field.key);
    if (match == nullptr) {
      changes.push_back({field.key, field.value, kAbsent});
    } else if (match->value != field.value) {
      changes.push_back({field.key, field.value, match->value});
    }
  }
  for (const ConfigField& field : new_fields) {
    if (FindField(old_fields, field.key) == nullptr) {
      changes.push_back({field.key, kAbsent, field.value});
    }
  }
  return changes;
}

ResumeChanges ClassifyForResume(const std::vector<ConfigChange>& changes) {
  ResumeChanges classified;
  for (const ConfigChange& change : changes) {
    (MayChange(change.key) ? classified.allowed : classified.refused).push_back(change);
  }
  return classified;
}

}  // namespace panthera
