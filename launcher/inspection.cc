#include "launcher/inspection.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/step_directories.h"

namespace panthera {
namespace {

template <typename Enum>
const char* EnumText(Enum value) {
  return EnumNames<Enum>::kNames[static_cast<size_t>(value)];
}

absl::Status Unknown(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(
      path,
      " is nothing that panthera reads or writes; give a run directory, a checkpoint directory "
      "(RUN_DIR/checkpoints/step_00001000), a .safetensors file, a token file (the name of a "
      "Megatron pair, or an llm.c .bin) or a SentencePiece .model"));
}

absl::StatusOr<Wholeness> InspectDirectory(FileSystem& files, const std::string& path,
                                           const InspectOptions& options, std::ostream& out) {
  ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files.List(path));
  const auto has = [&entries](const char* name) {
    return std::any_of(entries.begin(), entries.end(),
                       [name](const DirectoryEntry& entry) { return entry.name == name; });
  };
  const std::string last = std::filesystem::path(path).filename().string();
  if (has(kManifestName) || ParseStepDirectory(last).has_value()) {
    return InspectCheckpoint(files, path, options, out);
  }
  if (has("checkpoints") || has("metrics.jsonl") || (has("config.toml") && has("lock"))) {
    return InspectRun(files, path, options, out);
  }
  return Unknown(path);
}

}  // namespace

std::string FactLine(const std::string& name, const std::string& value) {
  return absl::StrFormat("  %-18s%s\n", name, value);
}

std::string ModelFacts(const RunOptions& options) {
  const ModelOptions& model = options.model;
  const OptimOptions& optim = options.optim;
  return FactLine("model",
                  absl::StrFormat(
                      "%d layers, width %d, %d heads (%d key/value) of %d, feed-forward "
                      "%d, vocabulary %d, sequences of %d",
                      model.layers, model.width, model.heads, model.kv_heads, model.head_width,
                      model.ffn_width, model.vocab_size, model.sequence_length)) +
         FactLine(
             "optimizer",
             absl::StrFormat(
                 "%s%s; weights %s, momentum %s", EnumText(optim.algorithm),
                 optim.table.optimizer == TableOptimizer::kSame ? "" : ", for the embedding adamw",
                 EnumText(optim.weights), EnumText(optim.momentum)));
}

absl::StatusOr<Wholeness> Inspect(FileSystem& files, const std::string& given,
                                  const InspectOptions& options, std::ostream& out) {
  std::string path = given;
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return InspectDirectory(files, path, options, out);
  }
  if (absl::EndsWith(path, ".safetensors")) {
    return InspectSafetensors(files, path, options, out);
  }
  if (absl::EndsWith(path, ".model")) {
    return InspectTokenizer(path, out);
  }
  const absl::StatusOr<Wholeness> tokens = InspectTokens(path, options, out);
  const bool is_token_file = absl::EndsWith(path, ".bin") || absl::EndsWith(path, ".idx");
  if (!tokens.ok() && std::filesystem::exists(path, error) && !is_token_file) {
    return Unknown(path);
  }
  return tokens;
}

}  // namespace panthera
