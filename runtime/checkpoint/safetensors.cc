#include "runtime/checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/json_integer.h"
#include "runtime/base/one_line.h"
#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little,
              "tensors are written in memory order, which the format wants little-endian");

constexpr int64_t kLengthBytes = 8;
// The same bound as in the format's own library; no sensible header comes near.
constexpr int64_t kLargestHeaderBytes = 100'000'000;

struct DTypeName {
  DType dtype;
  const char* name;
};
constexpr DTypeName kDTypeNames[] = {
    {DType::kF32, "F32"}, {DType::kBF16, "BF16"}, {DType::kF16, "F16"}, {DType::kF64, "F64"},
    {DType::kI64, "I64"}, {DType::kI32, "I32"},   {DType::kU8, "U8"}};

absl::Status BadHeader(const std::string& path, const std::string& why) {
  return absl::DataLossError(
      absl::StrCat(path, " is not a valid safetensors file: ", OneLine(why)));
}

// One entry, with offsets still counted from the first tensor. Throws what nlohmann throws when
// keys are missing or of another type.
absl::StatusOr<SafetensorsEntry> ParseEntry(const std::string& name, const Json& json) {
  SafetensorsEntry entry;
  entry.tensor.name = name;
  ASSIGN_OR_RETURN(entry.tensor.dtype, DTypeFromSafetensors(json.at("dtype").get<std::string>()));
  ASSIGN_OR_RETURN(entry.tensor.shape, ShapeFromSizes(JsonIntegers(json.at("shape"))));
  const auto offsets = JsonIntegers(json.at("data_offsets"));
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) {
    return absl::DataLossError("data_offsets are not two ascending numbers");
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(entry.tensor.shape.elements(), SizeOf(entry.tensor.dtype), &bytes) ||
      offsets[1] - offsets[0] != bytes) {
    return absl::DataLossError(absl::StrCat("offsets ", offsets[0], " to ", offsets[1],
                                            " do not hold ", ToString(entry.tensor.shape),
                                            " elements of ", Name(entry.tensor.dtype)));
  }
  entry.begin = offsets[0];
  return entry;
}

absl::StatusOr<std::vector<SafetensorsEntry>> ParseEntries(const std::string& text) {
  std::vector<SafetensorsEntry> entries;
  try {
    const Json json = Json::parse(text);
    for (const auto& [name, value] : json.items()) {
      if (name == "__metadata__") {
        continue;
      }
      absl::StatusOr<SafetensorsEntry> entry = ParseEntry(name, value);
      if (!entry.ok()) {
        return absl::DataLossError(absl::StrCat("tensor ", name, ": ", entry.status().message()));
      }
      entries.push_back(*std::move(entry));
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(error.what());
  }
  std::stable_sort(
      entries.begin(), entries.end(),
      [](const SafetensorsEntry& a, const SafetensorsEntry& b) { return a.begin < b.begin; });
  return entries;
}

}  // namespace

const char* SafetensorsName(DType dtype) {
  for (const DTypeName& entry : kDTypeNames) {
    if (entry.dtype == dtype) {
      return entry.name;
    }
  }
  CHECK(false) << "no safetensors name for " << dtype;
  return "";
}

absl::StatusOr<DType> DTypeFromSafetensors(const std::string& name) {
  std::string known;
  for (const DTypeName& entry : kDTypeNames) {
    if (name == entry.name) {
      return entry.dtype;
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", entry.name);
  }
  return absl::DataLossError(
      absl::StrCat("element type \"", name, "\" is not supported; supported are ", known));
}

absl::StatusOr<Shape> ShapeFromSizes(std::span<const int64_t> sizes) {
  if (sizes.size() > static_cast<size_t>(Shape::kMaxRank)) {
    return absl::DataLossError(
        absl::StrCat("a shape with ", sizes.size(), " dimensions; at most 4 are supported"));
  }
  int64_t elements = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(elements, std::max<int64_t>(size, 1), &elements)) {
      return absl::DataLossError("a shape with negative or too large sizes");
    }
  }
  switch (sizes.size()) {
    case 0:
      return Shape{};
    case 1:
      return Shape{sizes[0]};
    case 2:
      return Shape{sizes[0], sizes[1]};
    case 3:
      return Shape{sizes[0], sizes[1], sizes[2]};
    default:
      return Shape{sizes[0], sizes[1], sizes[2], sizes[3]};
  }
}

SafetensorsHeader LayOutSafetensors(std::span<const TensorDescription> tensors) {
  SafetensorsHeader header;
  Json json;
  // transformers refuses a file without this mark.
  json["__metadata__"]["format"] = "pt";
  int64_t end = 0;
  for (const TensorDescription& tensor : tensors) {
    const int64_t begin = end;
    end += tensor.bytes();
    Json sizes = Json::array();
    for (int i = 0; i < tensor.shape.rank(); ++i) {
      sizes.push_back(tensor.shape[i]);
    }
    CHECK(!json.contains(tensor.name)) << tensor.name << " is given twice";
    json[tensor.name] = {
        {"dtype", SafetensorsName(tensor.dtype)}, {"shape", sizes}, {"data_offsets", {begin, end}}};
    header.entries.push_back({tensor, begin});
  }
  std::string text = json.dump();
  text.resize(static_cast<size_t>(RoundUp(static_cast<int64_t>(text.size()), 8)), ' ');
  const uint64_t length = text.size();
  header.bytes.resize(kLengthBytes);
  std::memcpy(header.bytes.data(), &length, kLengthBytes);
  header.bytes += text;
  const int64_t data_begin = static_cast<int64_t>(header.bytes.size());
  for (SafetensorsEntry& entry : header.entries) {
    entry.begin += data_begin;
  }
  header.file_bytes = data_begin + end;
  return header;
}

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(File& file, const std::string& path) {
  SafetensorsHeader header;
  ASSIGN_OR_RETURN(header.file_bytes, file.Bytes());
  if (header.file_bytes < kLengthBytes) {
    return BadHeader(path, absl::StrCat("it has only ", header.file_bytes, " bytes"));
  }
  uint64_t length = 0;
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(&length, 1))));
  if (length >
      static_cast<uint64_t>(std::min(kLargestHeaderBytes, header.file_bytes - kLengthBytes))) {
    return BadHeader(path, absl::StrCat("a header of ", length, " bytes does not fit a file of ",
                                        header.file_bytes, " bytes"));
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
  header.bytes.resize(static_cast<size_t>(data_begin));
  RETURN_IF_ERROR(file.ReadAt(0, std::as_writable_bytes(std::span(header.bytes))));
  absl::StatusOr<std::vector<SafetensorsEntry>> entries =
      ParseEntries(header.bytes.substr(kLengthBytes));
  if (!entries.ok()) {
    return BadHeader(path, std::string(entries.status().message()));
  }
  header.entries = *std::move(entries);
  int64_t end = data_begin;
  for (SafetensorsEntry& entry : header.entries) {
    // Compared before adding: an offset near 2^63 must not overflow.
    if (entry.begin != end - data_begin) {
      return BadHeader(path, absl::StrCat("tensor ", entry.tensor.name, " begins at byte ",
                                          entry.begin, " of the data, where ", end - data_begin,
                                          " is expected: tensors overlap or leave a gap"));
    }
    if (entry.tensor.bytes() > header.file_bytes - end) {
      return BadHeader(
          path, absl::StrCat("tensor ", entry.tensor.name, " reaches beyond the end of the file (",
                             header.file_bytes, " bytes): the file was cut off"));
    }
    entry.begin = end;
    end += entry.tensor.bytes();
  }
  if (end != header.file_bytes) {
    return BadHeader(path, absl::StrCat("its tensors end at byte ", end, ", the file at byte ",
                                        header.file_bytes));
  }
  return header;
}

std::vector<SafetensorsFile> SpreadOverFiles(const std::string& set,
                                             std::span<const TensorDescription> tensors,
                                             int64_t max_file_bytes) {
  std::vector<std::span<const TensorDescription>> parts;
  size_t first = 0;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > first && tensors[i].bytes() > max_file_bytes - bytes) {
      parts.push_back(tensors.subspan(first, i - first));
      first = i;
      bytes = 0;
    }
    bytes += tensors[i].bytes();
  }
  parts.push_back(tensors.subspan(first));
  std::vector<SafetensorsFile> files;
  for (const std::span<const TensorDescription> part : parts) {
    const std::string name = parts.size() == 1 ? set + ".safetensors"
                                               : absl::StrFormat("%s-%05d-of-%05d.safetensors", set,
                                                                 files.size() + 1, parts.size());
    files.push_back({name, LayOutSafetensors(part)});
  }
  return files;
}

std::string SafetensorsIndexJson(std::span<const SafetensorsFile> files) {
  Json weight_map = Json::object();
  int64_t total_bytes = 0;
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsEntry& entry : file.header.entries) {
      weight_map[entry.tensor.name] = file.name;
      total_bytes += entry.tensor.bytes();
    }
  }
  Json json;
  json["metadata"]["total_size"] = total_bytes;
  json["weight_map"] = std::move(weight_map);
  return json.dump(2) + "\n";
}

}  // namespace panthera
