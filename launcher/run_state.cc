#include "launcher/run_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <nlohmann/json.hpp>

#include "runtime/base/json_integer.h"
#include "runtime/base/status_macros.h"
#include "runtime/checkpoint/checksum.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

// Throws what nlohmann throws.
absl::StatusOr<DataFileRecord> ParseFile(const Json& json) {
  DataFileRecord file;
  file.key = json.at("key").get<std::string>();
  file.path = json.at("path").get<std::string>();
  file.tokens = JsonInteger(json.at("tokens"));
  ASSIGN_OR_RETURN(file.fingerprint, ParseChecksum(json.at("fingerprint").get<std::string>()));
  return file;
}

absl::StatusOr<RunState> ParseChecked(const Json& json) {
  RunState state;
  state.step = JsonInteger(json.at("step"));
  state.sequences = JsonInteger(json.at("sequences"));
  state.tokens = JsonInteger(json.at("tokens"));
  state.data_seed = JsonInteger(json.at("data_seed"));
  state.data_ranks = JsonInteger(json.value("data_ranks", Json(0)));
  state.tensor_ranks = JsonInteger(json.value("tensor_ranks", Json(0)));
  for (const Json& file_json : json.value("data", Json(Json::array()))) {
    ASSIGN_OR_RETURN(DataFileRecord file, ParseFile(file_json));
    state.data.files.push_back(std::move(file));
  }
  state.data.tokenizer = json.value("tokenizer", "");
  return state;
}

// "data.train[0]: data/a.bin (100 tokens)"
std::string Describe(const DataFileRecord& file) {
  return absl::StrFormat("%s: %s (%d tokens)", file.key, file.path, file.tokens);
}

}  // namespace

DataRecord DescribeData(const DataLoader& data, const Tokenizer* tokenizer) {
  DataRecord record;
  for (size_t source = 0; source < data.sources().size(); ++source) {
    for (const TokenFile& file : data.sources()[source].files()) {
      record.files.push_back({.key = absl::StrFormat("data.train[%d]", source),
                              .path = file.path(),
                              .tokens = file.tokens(),
                              .fingerprint = file.Fingerprint()});
    }
  }
  record.tokenizer = tokenizer == nullptr ? "" : tokenizer->fingerprint();
  return record;
}

RunState StateAfter(const RunOptions& options, const Mesh& mesh, const DataRecord& data,
                    int64_t step) {
  const int64_t sequences = step * options.train.global_batch;
  return {.step = step,
          .sequences = sequences,
          .tokens = sequences * options.model.sequence_length,
          .data_seed = options.data.seed,
          .data_ranks = mesh.data_size,
          .tensor_ranks = mesh.tensor_size,
          .data = data};
}

std::string RunStateJson(const RunState& state) {
  Json files = Json::array();
  for (const DataFileRecord& file : state.data.files) {
    files.push_back({{"key", file.key},
                     {"path", file.path},
                     {"tokens", file.tokens},
                     {"fingerprint", ChecksumText(file.fingerprint)}});
  }
  const Json json = {{"step", state.step},
                     {"sequences", state.sequences},
                     {"tokens", state.tokens},
                     {"data_seed", state.data_seed},
                     {"data_ranks", state.data_ranks},
                     {"tensor_ranks", state.tensor_ranks},
                     {"data", std::move(files)},
                     {"tokenizer", state.data.tokenizer}};
  // Names of files may hold any bytes.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<RunState> ParseRunState(const std::string& text) {
  try {
    return ParseChecked(Json::parse(text));
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("it is not a run's state: ", error.what()));
  }
}

absl::Status CheckSameData(const DataRecord& before, const DataRecord& now) {
  if (before.files.empty()) {
    return absl::OkStatus();
  }
  const size_t common = std::min(before.files.size(), now.files.size());
  for (size_t i = 0; i < common; ++i) {
    const DataFileRecord& was = before.files[i];
    const DataFileRecord& is = now.files[i];
    if (was.key != is.key || was.tokens != is.tokens || was.fingerprint != is.fingerprint) {
      return absl::FailedPreconditionError(
          absl::StrCat("this run has learned from ", Describe(was), ", which is now ",
                       was.path == is.path && was.key == is.key && was.tokens == is.tokens
                           ? "another file of as many tokens"
                           : Describe(is)));
    }
  }
  if (before.files.size() != now.files.size()) {
    const bool is_gone = before.files.size() > common;
    return absl::FailedPreconditionError(
        absl::StrCat("this run has learned from ", before.files.size(), " token files and now has ",
                     now.files.size(), "; ", is_gone ? "missing is " : "new is ",
                     Describe((is_gone ? before : now).files[common])));
  }
  if (!before.tokenizer.empty() && before.tokenizer != now.tokenizer) {
    return absl::FailedPreconditionError(
        "data.tokenizer: the model is not the one that this run began with");
  }
  return absl::OkStatus();
}

}  // namespace panthera
