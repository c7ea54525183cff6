#include "runtime/checkpoint/weight_files.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/base/one_line.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/step_directories.h"
#include "runtime/checkpoint/tensor_blocks.h"

namespace panthera {
namespace {

// An index has a hundred bytes for each tensor.
constexpr int64_t kLargestIndexBytes = 100'000'000;

bool HasFile(const std::vector<DirectoryEntry>& entries, const std::string& name) {
  return std::any_of(entries.begin(), entries.end(), [&name](const DirectoryEntry& entry) {
    return entry.name == name && !entry.is_directory;
  });
}

absl::Status NoWeights(const std::string& directory, const std::vector<DirectoryEntry>& entries) {
  const bool is_pickled =
      std::any_of(entries.begin(), entries.end(), [](const DirectoryEntry& entry) {
        return absl::StartsWith(entry.name, "pytorch_model") && absl::EndsWith(entry.name, ".bin");
      });
  return absl::NotFoundError(
      absl::StrCat(directory, " has neither ", kWeightFileName, " nor ", kWeightIndexName,
                   is_pickled ? ", only weights of pytorch_model.bin; save them with transformers' "
                                "save_pretrained(..., safe_serialization=True)"
                              : "; give the directory of a Hugging Face model or of a checkpoint"));
}

// Names of tensors by the file in which the index says that they lie.
using NamesByFile = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<NamesByFile> ParseIndex(const std::string& text, const std::string& path) {
  const auto bad = [&path](const std::string& why) {
    return absl::DataLossError(
        absl::StrCat(path, " is not a valid index of tensors: ", OneLine(why), "; fetch it again"));
  };
  NamesByFile names;
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    for (const auto& [tensor, file] :
         json.at("weight_map").get_ref<const nlohmann::json::object_t&>()) {
      const auto& name = file.get_ref<const std::string&>();
      // A file elsewhere is none of this model, and should not be opened at its wish.
      if (name.find('/') != std::string::npos || !absl::EndsWith(name, ".safetensors")) {
        return bad(absl::StrCat("tensor ", tensor, " lies in \"", name,
                                "\", which is not the name of a .safetensors file beside the "
                                "index"));
      }
      names[name].push_back(tensor);
    }
  } catch (const nlohmann::json::exception& error) {
    return bad(error.what());
  }
  if (names.empty()) {
    return bad("its weight_map is empty");
  }
  return names;
}

// Every name in one list must be in the other; `found` is sorted.
absl::Status CheckSameNames(const std::string& index, const std::string& path,
                            std::vector<std::string> listed,
                            const std::vector<std::string>& found) {
  std::sort(listed.begin(), listed.end());
  std::vector<std::string> missing;
  std::set_difference(listed.begin(), listed.end(), found.begin(), found.end(),
                      std::back_inserter(missing));
  if (!missing.empty()) {
    return absl::DataLossError(absl::StrCat(path, " has no tensor ", OneLine(missing[0]),
                                            ", which ", index,
                                            " says it has; fetch both files again"));
  }
  std::vector<std::string> extra;
  std::set_difference(found.begin(), found.end(), listed.begin(), listed.end(),
                      std::back_inserter(extra));
  if (!extra.empty()) {
    return absl::DataLossError(absl::StrCat(path, " has a tensor ", OneLine(extra[0]), " that ",
                                            index, " does not name there; fetch both files again"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WeightFiles> WeightFiles::Open(FileSystem& files, const std::string& directory) {
  WeightFiles weights;
  weights.directory_ = directory;
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files.List(directory));
  if (HasFile(entries, kManifestName)) {
    ASSIGN_OR_RETURN(weights.checkpoint_, Checkpoint::Open(files, directory));
  }
  const bool is_single = HasFile(entries, kWeightFileName);
  const bool is_indexed = HasFile(entries, kWeightIndexName);
  if (is_single && is_indexed) {
    return absl::FailedPreconditionError(absl::StrCat(directory, " has both ", kWeightFileName,
                                                      " and ", kWeightIndexName,
                                                      "; remove the one that is out of date"));
  }
  if (!is_single && !is_indexed) {
    return NoWeights(directory, entries);
  }
  RETURN_IF_ERROR(is_single ? weights.AddFile(files, kWeightFileName)
                            : weights.AddIndexedFiles(files));
  // No name occurs twice: a header has none twice, and of several files each has those that the
  // index gives to it.
  std::sort(
      weights.tensors_.begin(), weights.tensors_.end(),
      [](const StoredTensor& a, const StoredTensor& b) { return a.tensor.name < b.tensor.name; });
  return weights;
}

absl::Status WeightFiles::AddFile(FileSystem& files, const std::string& name) {
  const std::string path = absl::StrCat(directory_, "/", name);
  ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.Open(path, OpenMode::kRead));
  absl::StatusOr<SafetensorsHeader> header = ReadSafetensorsHeader(*file, path);
  if (absl::IsDataLoss(header.status())) {
    return absl::DataLossError(
        absl::StrCat(header.status().message(), "; fetch it again, or use other weights"));
  }
  RETURN_IF_ERROR(header.status());
  for (SafetensorsEntry& entry : header->entries) {
    tensors_.push_back({std::move(entry.tensor), name, entry.begin});
  }
  return absl::OkStatus();
}

absl::Status WeightFiles::AddIndexedFiles(FileSystem& files) {
  const std::string index = absl::StrCat(directory_, "/", kWeightIndexName);
  ASSIGN_OR_RETURN(const std::string text, ReadFileUpTo(files, index, kLargestIndexBytes));
  ASSIGN_OR_RETURN(const NamesByFile names, ParseIndex(text, index));
  for (const auto& [file, listed] : names) {
    const size_t first = tensors_.size();
    const absl::Status added = AddFile(files, file);
    if (absl::IsNotFound(added)) {
      return absl::DataLossError(absl::StrCat(directory_, "/", OneLine(file), " is missing, which ",
                                              index, " names; fetch it again"));
    }
    RETURN_IF_ERROR(added);
    std::vector<std::string> found;
    for (size_t i = first; i < tensors_.size(); ++i) {
      found.push_back(tensors_[i].tensor.name);
    }
    std::sort(found.begin(), found.end());
    RETURN_IF_ERROR(
        CheckSameNames(index, absl::StrCat(directory_, "/", OneLine(file)), listed, found));
  }
  return absl::OkStatus();
}

const StoredTensor* WeightFiles::Find(const std::string& name) const {
  const auto place = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const StoredTensor& tensor, const std::string& key) { return tensor.tensor.name < key; });
  return place != tensors_.end() && place->tensor.name == name ? &*place : nullptr;
}

bool WeightFiles::IsDerived(const std::string& name) const {
  const TensorSetRecord* set = checkpoint_.has_value() ? checkpoint_->FindSet("model") : nullptr;
  return set != nullptr &&
         std::find(set->derived.begin(), set->derived.end(), name) != set->derived.end();
}

absl::Status WeightReader::OpenFileOf(const StoredTensor& tensor) {
  std::string path = weights_.PathOf(tensor);
  if (path != open_path_) {
    ASSIGN_OR_RETURN(file_, files_.Open(path, OpenMode::kRead));
    open_path_ = std::move(path);
  }
  return absl::OkStatus();
}

absl::Status WeightReader::Read(const StoredTensor& tensor, int64_t begin,
                                std::span<std::byte> bytes) {
  const int64_t offset = begin * SizeOf(tensor.tensor.dtype);
  CHECK_GE(begin, 0);
  CHECK_LE(offset + static_cast<int64_t>(bytes.size()), tensor.tensor.bytes())
      << tensor.tensor.name;
  RETURN_IF_ERROR(OpenFileOf(tensor));
  return file_->ReadAt(tensor.begin + offset, bytes);
}

absl::Status WeightReader::Verify(const StoredTensor& tensor, int64_t begin, int64_t end) {
  const std::optional<Checkpoint>& checkpoint = weights_.checkpoint();
  const TensorSetRecord* set = checkpoint.has_value() ? checkpoint->FindSet("model") : nullptr;
  if (set == nullptr) {
    return absl::OkStatus();
  }
  const auto record = std::find_if(
      set->tensors.begin(), set->tensors.end(),
      [&tensor](const TensorRecord& known) { return known.tensor.name == tensor.tensor.name; });
  if (record == set->tensors.end()) {
    return absl::DataLossError(absl::StrCat(weights_.PathOf(tensor), " has a tensor ",
                                            tensor.tensor.name,
                                            " that the manifest does not have"));
  }
  RETURN_IF_ERROR(OpenFileOf(tensor));
  const int64_t block_bytes = checkpoint->manifest().block_bytes;
  block_.resize(static_cast<size_t>(block_bytes));
  const TensorBlocks blocks(*file_, open_path_, tensor.begin, *record, block_bytes);
  for (const SliceRecord& slice : record->slices) {
    for (size_t block = 0; block < slice.checksums.size(); ++block) {
      bool is_wanted = false;
      CHECK_OK(ForEachRun(
          slice.runs, blocks.Begin(block), blocks.End(slice, block), [&](const RunPart& part) {
            is_wanted = is_wanted || (part.element < end && begin < part.element + part.elements);
            return absl::OkStatus();
          }));
      if (is_wanted) {
        RETURN_IF_ERROR(blocks.Read(slice, block, block_));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace panthera
