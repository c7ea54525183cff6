#include "launcher/weight_source.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "launcher/run_directory.h"
#include "model/hugging_face.h"
#include "model/hugging_face_config.h"
#include "model/transformer.h"
#include "runtime/base/one_line.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/float_elements.h"
#include "runtime/checkpoint/step_directories.h"
#include "runtime/comm/self_communicator.h"

namespace panthera {
namespace {

constexpr int64_t kLargestConfigBytes = 10'000'000;

// `path` if the weights lie there, "" if it is to be searched as a run directory.
absl::StatusOr<std::string> NamedDirectory(FileSystem& files, const std::string& given) {
  std::string path = given;
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files.List(path));
  const auto has = [&entries](const char* name) {
    return std::any_of(entries.begin(), entries.end(),
                       [name](const DirectoryEntry& entry) { return entry.name == name; });
  };
  if (has(kManifestName)) {
    return path;
  }
  if (ParseStepDirectory(std::filesystem::path(path).filename().string()).has_value()) {
    return absl::DataLossError(
        absl::StrCat(path, " has no manifest.json: it is not a whole checkpoint; use another one"));
  }
  if (has(kModelConfigName)) {
    return path;
  }
  if (has("checkpoints")) {
    return "";
  }
  return absl::NotFoundError(absl::StrCat(
      path,
      " has no config.json and no checkpoints; give the directory of a Hugging Face model, a "
      "run, or a checkpoint like RUN_DIR/checkpoints/step_00001000"));
}

std::string Described(const StoredTensor& tensor) {
  return absl::StrCat(OneLine(tensor.tensor.name), " ", ToString(tensor.tensor.shape));
}

absl::Status CheckTensor(const WeightFiles& weights, const ParamSpec& spec) {
  const Shape& shape = spec.logical_shape();
  const StoredTensor* tensor = weights.Find(spec.name);
  if (tensor == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(weights.directory(), " has no tensor ", spec.name, " ", ToString(shape),
                     ", which its config.json asks for; fetch all of its files again"));
  }
  if (tensor->tensor.shape != shape) {
    return absl::FailedPreconditionError(absl::StrCat(
        weights.PathOf(*tensor), ": tensor ", Described(*tensor), " should be ", ToString(shape),
        " by config.json beside it; fetch both files again, from the same model"));
  }
  if (!IsWeightType(tensor->tensor.dtype)) {
    return absl::FailedPreconditionError(absl::StrCat(weights.PathOf(*tensor), ": tensor ",
                                                      spec.name, " is ", Name(tensor->tensor.dtype),
                                                      "; supported are fp32, bf16 and fp16"));
  }
  return absl::OkStatus();
}

absl::Status ExtraTensor(const WeightFiles& weights, const StoredTensor& tensor,
                         const ModelOptions& model) {
  const bool is_second_head = tensor.tensor.name == kHeadName && model.tie == Tie::kTied;
  return absl::FailedPreconditionError(absl::StrCat(
      weights.PathOf(tensor), " has a tensor ", Described(tensor),
      is_second_head ? ", but config.json says tie_word_embeddings = true; say false there to use "
                       "it, or save the model without it"
                     : ", which a model with this config.json does not have; what it does would be "
                       "lost, so use another model"));
}

absl::Status CheckTensors(const WeightSource& source) {
  ParameterStore params;
  SelfCommunicator self;
  const Transformer transformer(source.model, self, params);
  std::set<std::string> wanted;
  for (int i = 0; i < params.num_params(); ++i) {
    const ParamSpec& spec = params.spec(ParamId{i});
    RETURN_IF_ERROR(CheckTensor(source.weights, spec));
    wanted.insert(spec.name);
  }
  for (const StoredTensor& tensor : source.weights.tensors()) {
    if (wanted.count(tensor.tensor.name) == 0 && !IsNeedless(tensor.tensor.name)) {
      return ExtraTensor(source.weights, tensor, source.model);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<WeightSource> OpenDirectory(FileSystem& files, const std::string& directory) {
  WeightSource source;
  const std::string config_path = absl::StrCat(directory, "/", kModelConfigName);
  ASSIGN_OR_RETURN(source.config, ReadFileUpTo(files, config_path, kLargestConfigBytes));
  ASSIGN_OR_RETURN(source.model, ParseHuggingFaceConfig(source.config, config_path));
  absl::StatusOr<WeightFiles> weights = WeightFiles::Open(files, directory);
  if (!weights.ok()) {
    const bool is_checkpoint =
        files.Open(absl::StrCat(directory, "/", kManifestName), OpenMode::kRead).ok();
    return is_checkpoint ? AdviseOnDamage(weights.status()) : weights.status();
  }
  source.weights = *std::move(weights);
  RETURN_IF_ERROR(CheckTensors(source));
  return source;
}

}  // namespace

bool IsNeedless(const std::string& tensor) {
  return absl::EndsWith(tensor, ".rotary_emb.inv_freq");
}

absl::StatusOr<WeightSource> OpenWeightSource(FileSystem& files, HostGroup& host,
                                              const std::string& path) {
  absl::StatusOr<std::string> named = std::string();
  if (host.rank() == 0) {
    named = NamedDirectory(files, path);
  }
  RETURN_IF_ERROR(Agree(host, named.status()));
  std::string directory = host.Broadcast(*named, /*root=*/0);
  if (directory.empty()) {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, SearchRun(files, host, path));
    directory = checkpoint.directory();
  }
  absl::StatusOr<WeightSource> source = OpenDirectory(files, directory);
  RETURN_IF_ERROR(Agree(host, source.status()));
  return source;
}

}  // namespace panthera
