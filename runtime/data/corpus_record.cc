#include "runtime/data/corpus_record.h"

#include <chrono>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"
#include "runtime/data/durable_file.h"
#include "runtime/data/mapped_file.h"

namespace panthera {
namespace {

nlohmann::json DescribeInput(const std::string& path) {
  std::error_code missing;
  const std::filesystem::path absolute = std::filesystem::absolute(path, missing);
  const uintmax_t size = std::filesystem::file_size(path, missing);
  const std::filesystem::file_time_type changed = std::filesystem::last_write_time(path, missing);
  return {{"path", absolute.string()},
          {"bytes", missing ? 0 : size},
          {"changed", missing ? 0 : changed.time_since_epoch().count()}};
}

nlohmann::json DescribePart(const CorpusPartReport& part) {
  return {{"documents", part.documents}, {"tokens", part.tokens}, {"text_bytes", part.bytes}};
}

}  // namespace

std::string CorpusRecipe(const DocumentOptions& documents, const std::string& tokenizer,
                         const std::vector<std::string>& outputs) {
  nlohmann::json inputs = nlohmann::json::array();
  for (const std::string& input : documents.inputs) {
    inputs.push_back(DescribeInput(input));
  }
  const nlohmann::json recipe = {
      {"inputs", inputs},
      {"format", static_cast<int>(documents.format)},
      {"json_key", documents.json_key},
      {"document_separator", documents.separator},
      {"invalid_utf8", static_cast<int>(documents.invalid_utf8)},
      {"validation_fraction", documents.validation_fraction},
      {"tokenizer", tokenizer},
      {"outputs", outputs},
  };
  return recipe.dump();
}

absl::StatusOr<std::string> ReadCorpusRecord(const std::string& path, const std::string& recipe) {
  // Something else of that name, such as a directory, is no record either.
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  const char* text = file.ok() ? reinterpret_cast<const char*>(file->data()) : nullptr;
  const int64_t bytes = file.ok() ? file->size() : 0;
  const nlohmann::json record = nlohmann::json::parse(text, text + bytes, nullptr, false);
  if (!record.is_object() || !record.contains("summary") || !record["summary"].is_string() ||
      !record.contains("made_from") || record["made_from"] != nlohmann::json::parse(recipe)) {
    return absl::NotFoundError(absl::StrCat(path, " does not record this recipe"));
  }
  return record["summary"].get<std::string>();
}

absl::Status WriteCorpusRecord(const std::string& path, const std::string& recipe,
                               const Tokenizer& tokenizer, const CorpusReport& report,
                               const std::string& summary) {
  nlohmann::json record = {
      {"made_from", nlohmann::json::parse(recipe)},
      {"tokenizer", tokenizer.fingerprint()},
      {"vocab_size", tokenizer.vocab_size()},
      {"training", DescribePart(report.training)},
      {"unigram_entropy_nats_per_token", UnigramEntropy(report.training.counts)},
      {"summary", summary},
  };
  if (report.validation.documents > 0) {
    record["validation"] = DescribePart(report.validation);
  }
  return WriteDurableFile(path, record.dump(2) + "\n");
}

}  // namespace panthera
