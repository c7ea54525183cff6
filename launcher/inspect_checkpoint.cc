#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/inspection.h"
#include "launcher/run_directory.h"
#include "launcher/run_state.h"
#include "launcher/text_table.h"
#include "launcher/training_checkpoint.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/verify.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/metrics/console.h"

namespace panthera {
namespace {

// "1.05M (1050624)"
std::string Count(int64_t count) {
  return count < 1000 ? absl::StrCat(count)
                      : absl::StrCat(FormatCount(static_cast<double>(count)), " (", count, ")");
}

bool IsDerived(const TensorSetRecord& set, const std::string& name) {
  return std::find(set.derived.begin(), set.derived.end(), name) != set.derived.end();
}

int64_t CountParameters(const TensorSetRecord& weights) {
  int64_t parameters = 0;
  for (const TensorRecord& record : weights.tensors) {
    parameters += IsDerived(weights, record.tensor.name) ? 0 : record.tensor.shape.elements();
  }
  return parameters;
}

// The first line of why something that another version may have written cannot be read.
std::string NotRead(const absl::Status& status) {
  const std::string message(status.message());
  return "not read: " + message.substr(0, message.find('\n'));
}

void PrintState(const RunState& state, std::ostream& out) {
  if (state.data_ranks > 0) {
    out << FactLine("saved on", absl::StrFormat("%d data x %d tensor ranks", state.data_ranks,
                                                state.tensor_ranks));
  }
  out << FactLine("learned from",
                  absl::StrFormat("%s tokens; sample %d of the order of seed %d comes next",
                                  FormatCount(static_cast<double>(state.tokens)), state.sequences,
                                  state.data_seed));
  for (const DataFileRecord& file : state.data.files) {
    out << FactLine("  " + file.key, absl::StrCat(file.path, ", ", Count(file.tokens), " tokens"));
  }
}

// What the run wrote into its checkpoint, as far as it is there and can be read.
void PrintRunFacts(FileSystem& files, const Checkpoint& checkpoint, std::ostream& out) {
  const absl::StatusOr<std::string> text = checkpoint.ReadSmallFile(files, kCheckpointStateName);
  if (!text.ok()) {
    return;
  }
  const absl::StatusOr<RunState> state = ParseRunState(*text);
  if (state.ok()) {
    PrintState(*state, out);
  } else {
    out << FactLine("state", NotRead(state.status()));
  }
  const absl::StatusOr<RunOptions> options = ReadCheckpointOptions(files, checkpoint);
  out << (options.ok() ? ModelFacts(*options)
                       : FactLine("configuration", NotRead(options.status())));
}

void PrintFiles(const Manifest& manifest, std::ostream& out) {
  TextTable table("lr");
  int64_t bytes = 0;
  for (const FileRecord& file : manifest.files) {
    table.AddRow({file.name, FormatBytes(file.bytes)});
    bytes += file.bytes;
  }
  table.AddRow({absl::StrCat("all ", manifest.files.size(), " files"), FormatBytes(bytes)});
  out << "files\n" << table.ToString("  ");
}

void PrintSets(const Manifest& manifest, std::ostream& out) {
  TextTable table("lrrrl");
  table.AddRow({"", "tensors", "elements", "bytes", "types"});
  for (const TensorSetRecord& set : manifest.sets) {
    int64_t elements = 0;
    int64_t bytes = 0;
    std::string types;
    for (const TensorRecord& record : set.tensors) {
      elements += record.tensor.shape.elements();
      bytes += record.tensor.bytes();
      const std::string type = Name(record.tensor.dtype);
      if (types.find(type) == std::string::npos) {
        absl::StrAppend(&types, types.empty() ? "" : ", ", type);
      }
    }
    table.AddRow({set.name, absl::StrCat(set.tensors.size()), absl::StrCat(elements),
                  FormatBytes(bytes), types});
  }
  out << "sets\n" << table.ToString("  ");
}

class TensorTable {
 public:
  explicit TensorTable(bool statistics)
      : statistics_(statistics), table_(statistics ? "lllrrrr" : "lll") {
    if (statistics) {
      table_.AddRow({"", "", "", "min", "max", "rms", "not finite"});
    }
  }

  void Add(const std::string& name, const TensorDescription& tensor,
           const TensorStatistics& statistics) {
    std::vector<std::string> row = {name, Name(tensor.dtype), panthera::ToString(tensor.shape)};
    if (statistics_) {
      for (const double value : {statistics.min(), statistics.max(), statistics.rms()}) {
        row.push_back(absl::StrFormat("%.4g", value));
      }
      row.push_back(absl::StrCat(statistics.non_finite()));
    }
    table_.AddRow(std::move(row));
  }

  std::string ToString() const { return "tensors\n" + table_.ToString("  "); }

 private:
  bool statistics_;
  TextTable table_;
};

// Reads all tensors; prints their table if it is asked for. Returns what is damaged.
absl::StatusOr<std::vector<std::string>> PrintVerified(FileSystem& files,
                                                       const Checkpoint& checkpoint,
                                                       const InspectOptions& options,
                                                       std::ostream& out) {
  TensorTable table(/*statistics=*/true);
  std::vector<std::string> damage;
  int64_t not_finite = 0;
  RETURN_IF_ERROR(
      VerifyTensors(files, checkpoint, [&](const std::string& set, const VerifiedTensor& tensor) {
        table.Add(TensorKey(set, tensor.record->tensor.name), tensor.record->tensor,
                  tensor.statistics);
        damage.insert(damage.end(), tensor.damage.begin(), tensor.damage.end());
        not_finite += tensor.statistics.non_finite();
      }));
  if (options.tensors) {
    out << table.ToString();
  }
  if (checkpoint.manifest().finite && not_finite > 0) {
    damage.push_back(absl::StrCat(not_finite,
                                  " numbers are not finite, the manifest says that "
                                  "all are"));
  }
  return damage;
}

void PrintTensors(const Manifest& manifest, std::ostream& out) {
  TensorTable table(/*statistics=*/false);
  for (const TensorSetRecord& set : manifest.sets) {
    for (const TensorRecord& record : set.tensors) {
      table.Add(TensorKey(set.name, record.tensor.name), record.tensor, {});
    }
  }
  out << table.ToString();
}

}  // namespace

absl::StatusOr<Wholeness> InspectCheckpoint(FileSystem& files, const std::string& path,
                                            const InspectOptions& options, std::ostream& out) {
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(files, path);
  if (!checkpoint.ok() && !IsDamage(checkpoint.status())) {
    return checkpoint.status();
  }
  out << path << ": a checkpoint\n";
  if (!checkpoint.ok()) {
    out << FactLine("whole", "no: " + std::string(checkpoint.status().message()));
    return Wholeness::kDamaged;
  }
  const Manifest& manifest = checkpoint->manifest();
  out << FactLine("step", absl::StrCat(manifest.step));
  if (const TensorSetRecord* weights = checkpoint->FindSet("model"); weights != nullptr) {
    out << FactLine("parameters", Count(CountParameters(*weights)));
  }
  out << FactLine("saved by", manifest.program);
  PrintRunFacts(files, *checkpoint, out);
  out << FactLine("numbers", manifest.finite ? "all finite" : "some are not finite");
  PrintFiles(manifest, out);
  PrintSets(manifest, out);
  if (!options.verify) {
    if (options.tensors) {
      PrintTensors(manifest, out);
    }
    out << FactLine("whole", "yes, by its manifest, lengths and headers; --verify reads all of it");
    return Wholeness::kWhole;
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> damage,
                   PrintVerified(files, *checkpoint, options, out));
  for (const std::string& line : damage) {
    out << FactLine("whole", "no: " + line);
  }
  if (!damage.empty()) {
    return Wholeness::kDamaged;
  }
  out << FactLine("whole", "yes: every checksum fits");
  return Wholeness::kWhole;
}

absl::StatusOr<Wholeness> InspectSafetensors(FileSystem& files, const std::string& path,
                                             const InspectOptions& options, std::ostream& out) {
  ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files.Open(path, OpenMode::kRead));
  const absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(*file, path);
  if (!header.ok() && !IsDamage(header.status())) {
    return header.status();
  }
  out << path << ": a safetensors file\n";
  if (!header.ok()) {
    out << FactLine("whole", "no: " + std::string(header.status().message()));
    return Wholeness::kDamaged;
  }
  out << FactLine("bytes", absl::StrCat(header->file_bytes))
      << FactLine("tensors", absl::StrCat(header->entries.size()));
  TensorTable table(options.verify);
  for (const SafetensorsEntry& entry : header->entries) {
    TensorStatistics statistics;
    if (options.verify) {
      ASSIGN_OR_RETURN(statistics, ReadStatistics(*file, entry));
    }
    table.Add(entry.tensor.name, entry.tensor, statistics);
  }
  out << table.ToString()
      << FactLine("whole",
                  "yes, as far as a file without checksums can tell: its header fits its "
                  "length");
  return Wholeness::kWhole;
}

}  // namespace panthera
