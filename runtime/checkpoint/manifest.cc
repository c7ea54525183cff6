#include "runtime/checkpoint/manifest.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checksum.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "panthera-checkpoint";

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

absl::StatusOr<SliceRecord> ParseSlice(const Json& json, int64_t tensor_elements) {
  const auto runs = json.at("runs").get<std::vector<int64_t>>();
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
  record.tensor.name = json.at("name").get<std::string>();
  ASSIGN_OR_RETURN(record.tensor.dtype, DTypeFromSafetensors(json.at("dtype").get<std::string>()));
  ASSIGN_OR_RETURN(record.tensor.shape,
                   ShapeFromSizes(json.at("shape").get<std::vector<int64_t>>()));
  record.file = json.at("file").get<std::string>();
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
    set.name = set_json.at("name").get<std::string>();
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
  manifest.step = json.at("step").get<int64_t>();
  manifest.finite = json.at("finite").get<bool>();
  manifest.block_bytes = json.at("block_bytes").get<int64_t>();
  if (manifest.block_bytes < 8 || manifest.block_bytes > (int64_t{1} << 30)) {
    return absl::DataLossError(absl::StrCat("blocks of ", manifest.block_bytes, " bytes"));
  }
  for (const Json& file_json : json.at("files")) {
    FileRecord file;
    file.name = file_json.at("name").get<std::string>();
    file.bytes = file_json.at("bytes").get<int64_t>();
    file.checked_bytes = file_json.at("checked_bytes").get<int64_t>();
    if (file.checked_bytes < 0 || file.checked_bytes > file.bytes) {
      return absl::DataLossError("file " + file.name + " is shorter than what was checked of it");
    }
    ASSIGN_OR_RETURN(file.checksum, ParseChecksum(file_json.at("checksum").get<std::string>()));
    manifest.files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(manifest.sets, ParseSets(json.at("sets")));
  return manifest;
}

absl::Status CheckBlocks(const Manifest& manifest) {
  for (const TensorSetRecord& set : manifest.sets) {
    for (const TensorRecord& record : set.tensors) {
      RETURN_IF_ERROR(CheckSlices(record));
      for (const SliceRecord& slice : record.slices) {
        const int64_t blocks =
            NumBlocks(slice.runs.elements(), record.tensor.dtype, manifest.block_bytes);
        if (static_cast<int64_t>(slice.checksums.size()) != blocks) {
          return absl::DataLossError(absl::StrCat("tensor ", record.tensor.name, " has ",
                                                  slice.checksums.size(), " checksums for ", blocks,
                                                  " blocks"));
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t NumBlocks(int64_t elements, DType dtype, int64_t block_bytes) {
  return CeilDiv(elements, block_bytes / SizeOf(dtype));
}

absl::Status CheckSlices(const TensorRecord& record) {
  struct Interval {
    int64_t begin;
    int64_t end;
  };
  std::vector<Interval> intervals;
  for (const SliceRecord& slice : record.slices) {
    for (int64_t i = 0; i < slice.runs.count; ++i) {
      const int64_t begin = slice.runs.begin + i * slice.runs.stride;
      intervals.push_back({begin, begin + slice.runs.run});
    }
  }
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  intervals.push_back({record.tensor.shape.elements(), 0});
  int64_t end = 0;
  for (const Interval& interval : intervals) {
    if (interval.begin != end) {
      return absl::DataLossError(absl::StrCat(
          "tensor ", record.tensor.name, " ", ToString(record.tensor.shape), ": elements ",
          std::min(interval.begin, end), " to ", std::max(interval.begin, end),
          interval.begin > end ? " are in no slice" : " are in more than one slice"));
    }
    end = interval.end;
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
    Json json = Json::parse(text);
    if (json.at("format").get<std::string>() != kFormat) {
      return absl::DataLossError("it is not a checkpoint's manifest");
    }
    // The version decides how the rest is to be read, the checksum included.
    const auto version = json.at("version").get<int64_t>();
    if (version != kManifestVersion) {
      return absl::DataLossError(absl::StrCat("it has format version ", version,
                                              ", this program reads version ", kManifestVersion));
    }
    const auto stored = json.at("checksum").get<std::string>();
    json.erase("checksum");
    if (stored != ChecksumText(Checksum(json.dump()))) {
      return absl::DataLossError("its checksum is wrong: the file was damaged or edited");
    }
    ASSIGN_OR_RETURN(Manifest manifest, ParseChecked(json));
    RETURN_IF_ERROR(CheckBlocks(manifest));
    return manifest;
  } catch (const Json::exception& error) {
    return absl::DataLossError(error.what());
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
    ASSIGN_OR_RETURN(record.sets, ParseSets(json.at("sets")));
    return record;
  } catch (const Json::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace panthera
