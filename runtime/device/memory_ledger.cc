#include "runtime/device/memory_ledger.h"

#include <algorithm>

#include "absl/strings/str_format.h"

#include "runtime/base/check.h"

namespace panthera {

const char* Name(MemoryCategory category) {
  switch (category) {
    case MemoryCategory::kWeights:
      return "weights";
    case MemoryCategory::kOptimizerState:
      return "optimizer state";
    case MemoryCategory::kGradients:
      return "gradients";
    case MemoryCategory::kCommunication:
      return "communication";
    case MemoryCategory::kActivations:
      return "activations";
    case MemoryCategory::kData:
      return "data";
    case MemoryCategory::kCheckpoint:
      return "checkpoint copy";
    case MemoryCategory::kPinned:
      return "pinned host memory";
  }
  return "unknown";
}

void MemoryLedger::Add(MemoryCategory category, const std::string& name, int64_t bytes) {
  for (Entry& entry : entries_) {
    if (entry.category == category && entry.name == name) {
      entry.bytes += bytes;
      return;
    }
  }
  entries_.push_back({category, name, bytes});
}

void MemoryLedger::Remove(MemoryCategory category, const std::string& name, int64_t bytes) {
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& candidate) {
    return candidate.category == category && candidate.name == name;
  });
  CHECK(entry != entries_.end()) << name << " was never added";
  CHECK_GE(entry->bytes, bytes) << name;
  entry->bytes -= bytes;
}

int64_t MemoryLedger::bytes(MemoryCategory category) const {
  int64_t sum = 0;
  for (const Entry& entry : entries_) {
    sum += entry.category == category ? entry.bytes : 0;
  }
  return sum;
}

int64_t MemoryLedger::total_bytes() const {
  int64_t sum = 0;
  for (const Entry& entry : entries_) {
    sum += entry.category == MemoryCategory::kPinned ? 0 : entry.bytes;
  }
  return sum;
}

std::string FormatBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) {
    return absl::StrFormat("%d B", bytes);
  }
  const int digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return absl::StrFormat("%.*f %s", digits, value, kUnits[unit]);
}

}  // namespace panthera
