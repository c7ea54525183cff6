#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <nlohmann/json.hpp>

#include "launcher/config_file.h"
#include "launcher/inspection.h"
#include "launcher/text_table.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/run_lock.h"
#include "runtime/checkpoint/step_directories.h"
#include "runtime/checkpoint/verify.h"
#include "runtime/metrics/console.h"

namespace panthera {
namespace {

// What a resume would think of one directory under RUN_DIR/checkpoints.
enum class Usability { kUsable, kPassedOver, kStops };

struct Finding {
  Usability usability = Usability::kPassedOver;
  Wholeness wholeness = Wholeness::kWhole;
  std::string text;
};

absl::StatusOr<Finding> Look(FileSystem& files, const std::string& path,
                             const StepDirectory& directory, const InspectOptions& options) {
  if (directory.ending == kTemporaryEnding) {
    return Finding{Usability::kPassedOver, Wholeness::kWhole,
                   "a save that was not finished; the next start removes it"};
  }
  if (directory.ending == kDeletedEnding) {
    return Finding{Usability::kPassedOver, Wholeness::kWhole,
                   "half removed; the next start removes the rest"};
  }
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(files, path);
  if (IsOtherVersion(checkpoint.status())) {
    return Finding{Usability::kStops, Wholeness::kWhole,
                   std::string(checkpoint.status().message())};
  }
  if (!checkpoint.ok() && IsDamage(checkpoint.status())) {
    return Finding{Usability::kPassedOver, Wholeness::kDamaged,
                   absl::StrCat("damaged: ", std::string(checkpoint.status().message()))};
  }
  RETURN_IF_ERROR(checkpoint.status());
  if (options.verify) {
    std::vector<std::string> damage;
    RETURN_IF_ERROR(
        VerifyTensors(files, *checkpoint, [&](const std::string&, const VerifiedTensor& tensor) {
          damage.insert(damage.end(), tensor.damage.begin(), tensor.damage.end());
        }));
    if (!damage.empty()) {
      return Finding{Usability::kPassedOver, Wholeness::kDamaged,
                     absl::StrCat("damaged: ", damage.front())};
    }
  }
  if (!checkpoint->manifest().finite) {
    return Finding{Usability::kPassedOver, Wholeness::kWhole, "whole, but not finite"};
  }
  return Finding{Usability::kUsable, Wholeness::kWhole, "whole and finite"};
}

// The last whole line of metrics.jsonl that has a step.
std::string Progress(FileSystem& files, const std::string& run) {
  const absl::StatusOr<std::string> text = ReadFile(files, run + "/metrics.jsonl");
  if (!text.ok()) {
    return absl::IsNotFound(text.status()) ? "no step is on record"
                                           : std::string(text.status().message());
  }
  size_t end = text->rfind('\n');
  while (end != std::string::npos && end > 0) {
    const size_t before = text->rfind('\n', end - 1);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    const nlohmann::json json = nlohmann::json::parse(text->substr(begin, end - begin), nullptr,
                                                      /*allow_exceptions=*/false);
    const auto number = [&json](const char* key) {
      const auto value = json.find(key);
      return value != json.end() && value->is_number() ? value->get<double>()
                                                       : std::numeric_limits<double>::quiet_NaN();
    };
    if (json.is_object() && json.contains("step")) {
      return absl::StrFormat("step %.0f, loss %.4f, %s tokens, %s tokens/s", number("step"),
                             number("loss_nats"), FormatCount(number("tokens")),
                             FormatCount(number("tokens_per_second")));
    }
    end = before;
  }
  return "no step is on record";
}

std::string DescribeLock(const LockState& lock) {
  switch (lock.life) {
    case LockState::Life::kHeld:
      return Describe(lock.holder) + " works here";
    case LockState::Life::kDead:
      return Describe(lock.holder) + " worked here and died";
    case LockState::Life::kUnknown:
      return Describe(lock.holder) + " works here, or died there";
    case LockState::Life::kFree:
      break;
  }
  return "no process works here";
}

// The configuration of the latest start, in short; nothing if it cannot be read.
std::string ConfigFacts(FileSystem& files, const std::string& run) {
  RunOptions options;
  const absl::StatusOr<std::string> text = ReadFile(files, run + "/config.toml");
  if (!text.ok() || !ParseConfig(*text, run + "/config.toml", {}, options).ok() ||
      !options.model.Finish().ok() || !options.optim.Finish().ok()) {
    return FactLine("configuration", "config.toml is not there or cannot be read");
  }
  return absl::StrCat(ModelFacts(options),
                      FactLine("planned", absl::StrCat(options.train.steps, " steps of ",
                                                       options.train.global_batch, " sequences")));
}

}  // namespace

absl::StatusOr<Wholeness> InspectRun(FileSystem& files, const std::string& path,
                                     const InspectOptions& options, std::ostream& out) {
  ASSIGN_OR_RETURN(const LockState lock, ReadRunLock(path));
  ASSIGN_OR_RETURN(const std::vector<StepDirectory> directories, ListStepDirectories(files, path));
  out << path << ": a run directory\n"
      << FactLine("in use", DescribeLock(lock)) << FactLine("latest", Progress(files, path))
      << ConfigFacts(files, path);

  TextTable table("ll");
  Wholeness wholeness = Wholeness::kWhole;
  std::string resume = "a new run begins: there is no checkpoint";
  bool decided = false;
  for (const StepDirectory& directory : directories) {
    const std::string inner = absl::StrCat(CheckpointsDirectory(path), "/", directory.name());
    ASSIGN_OR_RETURN(const Finding finding, Look(files, inner, directory, options));
    table.AddRow({directory.name(), finding.text});
    if (finding.wholeness == Wholeness::kDamaged) {
      wholeness = Wholeness::kDamaged;
    }
    if (decided) {
      continue;
    }
    decided = finding.usability != Usability::kPassedOver;
    if (finding.usability == Usability::kUsable) {
      resume = absl::StrCat("goes on after step ", directory.step, ", from ", directory.name());
    } else if (finding.usability == Usability::kStops) {
      resume = "is refused: " + directory.name() + " is of another version";
    } else if (directory.ending != kDeletedEnding) {
      resume = "is refused: no checkpoint is whole and finite";
    }
  }
  out << "checkpoints\n" << (table.empty() ? "  none\n" : table.ToString("  "));
  out << FactLine("a resume", resume);
  if (wholeness == Wholeness::kDamaged) {
    out << FactLine("whole", "no: a checkpoint is damaged");
    return wholeness;
  }
  out << FactLine(
      "whole", options.verify ? "yes: every checksum fits"
                              : "yes, by manifests, lengths and headers; --verify reads all of it");
  return wholeness;
}

}  // namespace panthera
