#include "runtime/checkpoint/manifest.h"

#include <algorithm>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/json_integer.h"
#include "runtime/base/one_line.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checksum.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "panthera-checkpoint";
// A load allocates a block.
constexpr int64_t kLargestBlockBytes = int64_t{64} << 20;
constexpr int kDeepest = 16;

Json ToJson(const SliceRecord& slice) {
  Json checksums = Json::array();
  for (const uint64_t checksum : slice.checksums) {
    checksums.push_back(ChecksumText(checksum));
  }
  const ElementRuns& runs = slice.runs;
  return {{"runs", {runs.begin, runs.run, runs.stride, runs.count}},
          {"checksums", std::move(checksums)}};
}

Json ToJson(const TensorRecord& record) {
  Json sizes = Json::array();
  for (int i = 0; i < record.tensor.shape.rank(); ++i) {
    sizes.push_back(record.tensor.shape[i]);
  }
  Json slices = Json::array();
  for (const SliceRecord& slice : record.slices) {
    slices.push_back(ToJson(slice));
  }
  return {{"name", record.tensor.name},
          {"dtype", SafetensorsName(record.tensor.dtype)},
          {"shape", std::move(sizes)},
          {"file", record.file},
          {"slices", std::move(slices)}};
}

Json ToJson(const std::vector<TensorSetRecord>& sets) {
  Json json = Json::array();
  for (const TensorSetRecord& set : sets) {
    Json tensors = Json::array();
    for (const TensorRecord& record : set.tensors) {
      tensors.push_back(ToJson(record));
    }
    json.push_back({{"name", set.name}, {"derived", set.derived}, {"tensors", std::move(tensors)}});
  }
  return json;
}

// The functions below throw what nlohmann throws when a key is missing or of another type; the
// public functions turn that into a status.

// The status with a message that can be shown whatever the names in it are.
absl::Status InOneLine(const absl::Status& status) {
  return status.ok() ? status : absl::Status(status.code(), OneLine(std::string(status.message())));
}

// Names go into messages and paths.
absl::StatusOr<std::string> ParseName(const Json& json) {
  std::string name = json.get<std::string>();
  if (OneLine(name) != name) {
    return absl::DataLossError("the name \"" + name + "\" has control characters");
  }
  return name;
}

absl::StatusOr<SliceRecord> ParseSlice(const Json& json, int64_t tensor_elements) {
  const auto runs = JsonIntegers(json.at("runs"));
  if (runs.size() != 4) {
    return absl::DataLossError("\"runs\" are not four numbers");
  }
  SliceRecord slice;
  slice.runs = {runs[0], runs[1], runs[2], runs[3]};
  RETURN_IF_ERROR(CheckRuns(slice.runs, tensor_elements));
  for (const Json& text : json.at("checksums")) {
    ASSIGN_OR_RETURN(const uint64_t checksum, ParseChecksum(text.get<std::string>()));
    slice.checksums.push_back(checksum);
  }
  return slice;
}

absl::StatusOr<TensorRecord> ParseTensor(const Json& json) {
  TensorRecord record;
  ASSIGN_OR_RETURN(record.tensor.name, ParseName(json.at("name")));
  ASSIGN_OR_RETURN(record.tensor.dtype, DTypeFromSafetensors(json.at("dtype").get<std::string>()));
  ASSIGN_OR_RETURN(record.tensor.shape, ShapeFromSizes(JsonIntegers(json.at("shape"))));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(record.tensor.shape.elements(), SizeOf(record.tensor.dtype), &bytes)) {
    return absl::DataLossError("tensor " + record.tensor.name + " is larger than any file");
  }
  ASSIGN_OR_RETURN(record.file, ParseName(json.at("file")));
  for (const Json& slice_json : json.at("slices")) {
    ASSIGN_OR_RETURN(SliceRecord slice, ParseSlice(slice_json, record.tensor.shape.elements()));
    record.slices.push_back(std::move(slice));
  }
  return record;
}

absl::StatusOr<std::vector<TensorSetRecord>> ParseSets(const Json& json) {
  std::vector<TensorSetRecord> sets;
  for (const Json& set_json : json) {
    TensorSetRecord set;
    ASSIGN_OR_RETURN(set.name, ParseName(set_json.at("name")));
    set.derived = set_json.at("derived").get<std::vector<std::string>>();
    for (const Json& tensor_json : set_json.at("tensors")) {
      ASSIGN_OR_RETURN(TensorRecord record, ParseTensor(tensor_json));
      set.tensors.push_back(std::move(record));
    }
    sets.push_back(std::move(set));
  }
  return sets;
}

absl::StatusOr<Manifest> ParseChecked(const Json& json) {
  Manifest manifest;
  manifest.program = json.at("program").get<std::string>();
  manifest.step = JsonInteger(json.at("step"));
  manifest.finite = json.at("finite").get<bool>();
  manifest.block_bytes = JsonInteger(json.at("block_bytes"));
  if (manifest.block_bytes < 8 || manifest.block_bytes > kLargestBlockBytes) {
    return absl::DataLossError(absl::StrCat("blocks of ", manifest.block_bytes, " bytes"));
  }
  for (const Json& file_json : json.at("files")) {
    FileRecord file;
    ASSIGN_OR_RETURN(file.name, ParseName(file_json.at("name")));
    file.bytes = JsonInteger(file_json.at("bytes"));
    file.checked_bytes = JsonInteger(file_json.at("checked_bytes"));
    if (file.checked_bytes < 0 || file.checked_bytes > file.bytes) {
      return absl::DataLossError("file " + file.name + " is shorter than what was checked of it");
    }
    ASSIGN_OR_RETURN(file.checksum, ParseChecksum(file_json.at("checksum").get<std::string>()));
    manifest.files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(manifest.sets, ParseSets(json.at("sets")));
  return manifest;
}

absl::Status OtherVersion(int64_t version, const std::string& program) {
  return absl::FailedPreconditionError(
      absl::StrCat("has format version ", version, ", written by ", OneLine(program),
                   "; this program reads version ", kManifestVersion, ": use ",
                   version > kManifestVersion ? "a newer" : "an older",
                   " panthera for it, or move its directory elsewhere to go on without it"));
}

absl::Status CheckBlocks(const Manifest& manifest) {
  for (const TensorSetRecord& set : manifest.sets) {
    for (const TensorRecord& record : set.tensors) {
      for (const SliceRecord& slice : record.slices) {
        const int64_t blocks =
            NumBlocks(slice.runs.elements(), record.tensor.dtype, manifest.block_bytes);
        if (static_cast<int64_t>(slice.checksums.size()) != blocks) {
          return absl::DataLossError(absl::StrCat("tensor ", record.tensor.name, " has ",
                                                  slice.checksums.size(), " checksums for ", blocks,
                                                  " blocks"));
        }
      }
      // Last: now there are not more elements than the checksums stand for.
      RETURN_IF_ERROR(CheckSlices(record));
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t NumBlocks(int64_t elements, DType dtype, int64_t block_bytes) {
  const int64_t block_elements = block_bytes / SizeOf(dtype);
  // Not by CeilDiv, which overflows for the largest counts that a damaged manifest can give.
  return elements / block_elements + (elements % block_elements == 0 ? 0 : 1);
}

absl::Status CheckSlices(const TensorRecord& record) {
  // The next run of every slice; the first of them must begin where the run before it ended. One
  // entry for each slice, as a slice of columns has as many runs as the matrix has rows.
  struct NextRun {
    int64_t begin;
    int64_t index;
    const ElementRuns* runs;
  };
  const auto later = [](const NextRun& a, const NextRun& b) { return a.begin > b.begin; };
  std::priority_queue<NextRun, std::vector<NextRun>, decltype(later)> queue(later);
  const ElementRuns behind_all = {record.tensor.shape.elements(), 0, 0, 1};
  queue.push({behind_all.begin, 0, &behind_all});
  for (const SliceRecord& slice : record.slices) {
    queue.push({slice.runs.begin, 0, &slice.runs});
  }
  int64_t end = 0;
  while (!queue.empty()) {
    const NextRun next = queue.top();
    queue.pop();
    if (next.begin != end) {
      return absl::DataLossError(
          absl::StrCat("tensor ", record.tensor.name, " ", ToString(record.tensor.shape),
                       ": elements ", std::min(next.begin, end), " to ", std::max(next.begin, end),
                       next.begin > end ? " are in no slice" : " are in more than one slice"));
    }
    end = next.begin + next.runs->run;
    if (next.index + 1 < next.runs->count) {
      queue.push({next.begin + next.runs->stride, next.index + 1, next.runs});
    }
  }
  return absl::OkStatus();
}

std::string ManifestJson(const Manifest& manifest) {
  Json json = {{"format", kFormat},           {"version", manifest.version},
               {"program", manifest.program}, {"step", manifest.step},
               {"finite", manifest.finite},   {"block_bytes", manifest.block_bytes}};
  Json files = Json::array();
  for (const FileRecord& file : manifest.files) {
    files.push_back({{"name", file.name},
                     {"bytes", file.bytes},
                     {"checked_bytes", file.checked_bytes},
                     {"checksum", ChecksumText(file.checksum)}});
  }
  json["files"] = std::move(files);
  json["sets"] = ToJson(manifest.sets);
  json["checksum"] = ChecksumText(Checksum(json.dump()));
  return json.dump(1) + "\n";
}

absl::StatusOr<Manifest> ParseManifest(const std::string& text) {
  try {
    // What is nested too deeply is left out, and then missed by the checksum: printing it would
    // take a stack frame for every level.
    Json json =
        Json::parse(text, [](int depth, Json::parse_event_t, Json&) { return depth <= kDeepest; });
    if (json.at("format").get<std::string>() != kFormat) {
      return absl::DataLossError("it is not a checkpoint's manifest");
    }
    const auto stored = json.at("checksum").get<std::string>();
    json.erase("checksum");
    if (stored != ChecksumText(Checksum(json.dump()))) {
      return absl::DataLossError("its checksum is wrong: the file was damaged or edited");
    }
    if (const auto version = JsonInteger(json.at("version")); version != kManifestVersion) {
      return OtherVersion(version, json.at("program").get<std::string>());
    }
    absl::StatusOr<Manifest> manifest = ParseChecked(json);
    if (manifest.ok()) {
      RETURN_IF_ERROR(InOneLine(CheckBlocks(*manifest)));
      return manifest;
    }
    return InOneLine(manifest.status());
  } catch (const Json::exception&) {
    // Its message can hold bytes of the file that are no text.
    return absl::DataLossError("it is not the JSON that was written: the file was damaged");
  }
}

std::string RankRecordJson(const RankRecord& record) {
  return Json{{"finite", record.finite}, {"sets", ToJson(record.sets)}}.dump();
}

absl::StatusOr<RankRecord> ParseRankRecord(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    RankRecord record;
    record.finite = json.at("finite").get<bool>();
    absl::StatusOr<std::vector<TensorSetRecord>> sets = ParseSets(json.at("sets"));
    RETURN_IF_ERROR(InOneLine(sets.status()));
    record.sets = *std::move(sets);
    return record;
  } catch (const Json::exception& error) {
    return absl::InternalError(OneLine(error.what()));
  }
}

}  // namespace panthera
