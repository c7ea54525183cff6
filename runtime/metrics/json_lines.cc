#include "runtime/metrics/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "runtime/base/status_macros.h"

namespace panthera {
namespace {

using Json = nlohmann::ordered_json;

void Add(Json& json, const char* key, const std::optional<double>& value) {
  if (value.has_value()) {
    json[key] = *value;
  }
}

absl::Status Failure(const std::string& action, const std::string& path) {
  const std::string reason = std::error_code(errno, std::generic_category()).message();
  return absl::UnavailableError(absl::StrCat("cannot ", action, " ", path, ": ", reason,
                                             "; check free space and permissions there"));
}

bool Stays(const std::string& line, int64_t last_step) {
  const Json json = Json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return false;
  }
  const auto step = json.find("step");
  if (step == json.end() || !step->is_number_integer()) {
    return true;
  }
  return step->is_number_unsigned() ? std::cmp_less_equal(step->get<uint64_t>(), last_step)
                                    : step->get<int64_t>() <= last_step;
}

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return errno == ENOENT ? absl::StatusOr<std::string>("") : Failure("read", path);
  }
  std::string contents;
  std::string chunk(size_t{1} << 20, '\0');
  ssize_t count = 0;
  while ((count = read(descriptor, chunk.data(), chunk.size())) > 0) {
    contents.append(chunk, 0, static_cast<size_t>(count));
  }
  const absl::Status status = count < 0 ? Failure("read", path) : absl::OkStatus();
  (void)close(descriptor);
  RETURN_IF_ERROR(status);
  return contents;
}

// Writes all of `text`; in one call unless the system takes less.
absl::Status WriteAll(int descriptor, const std::string& path, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(descriptor, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      return Failure("write", path);
    }
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

// By way of a second file, so that being killed loses nothing.
absl::Status Replace(const std::string& path, const std::string& contents) {
  const std::string temporary = path + ".tmp";
  const int descriptor = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return Failure("create", temporary);
  }
  absl::Status status = WriteAll(descriptor, temporary, contents);
  if (status.ok() && fsync(descriptor) != 0) {
    status = Failure("write", temporary);
  }
  (void)close(descriptor);
  RETURN_IF_ERROR(status);
  return rename(temporary.c_str(), path.c_str()) == 0 ? absl::OkStatus() : Failure("replace", path);
}

}  // namespace

std::string JsonLine(const StepMetrics& metrics) {
  Json json;
  json["step"] = metrics.step;
  json["tokens"] = metrics.tokens;
  json["loss_nats"] = metrics.loss_nats;
  Add(json, "validation_loss_nats", metrics.validation_loss_nats);
  json["learning_rate"] = metrics.learning_rate;
  Add(json, "gradient_norm", metrics.gradient_norm);
  if (metrics.skipped) {
    json["skipped"] = true;
  }
  if (metrics.masked_gradients > 0) {
    json["masked_gradients"] = metrics.masked_gradients;
  }
  json["step_seconds"] = metrics.step_seconds;
  json["tokens_per_second"] = metrics.tokens_per_second;
  Add(json, "gemm_share", metrics.gemm_share);
  json["bytes_sent"] = metrics.bytes_sent;
  Add(json, "embedding_max", metrics.embedding_max);
  Add(json, "embedding_share", metrics.embedding_share);
  for (const RowClassMetrics& rows : metrics.embedding_rows) {
    json["embedding_rows"].push_back({{"tokens_from", rows.tokens_from},
                                      {"rows", rows.rows},
                                      {"rms", rows.rms},
                                      {"largest_rms", rows.largest_rms}});
  }
  return json.dump() + "\n";
}

std::string KeepUpToStep(const std::string& contents, int64_t last_step) {
  std::string kept;
  size_t begin = 0;
  while (begin < contents.size()) {
    const size_t end = contents.find('\n', begin);
    if (end == std::string::npos) {
      break;
    }
    const std::string line = contents.substr(begin, end - begin);
    if (Stays(line, last_step)) {
      kept += line + "\n";
    }
    begin = end + 1;
  }
  return kept;
}

absl::StatusOr<std::unique_ptr<JsonLinesFile>> JsonLinesFile::Open(const std::string& path,
                                                                   int64_t last_step) {
  ASSIGN_OR_RETURN(const std::string contents, ReadAll(path));
  const std::string kept = KeepUpToStep(contents, last_step);
  if (kept != contents) {
    RETURN_IF_ERROR(Replace(path, kept));
  }
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return Failure("create", path);
  }
  return std::unique_ptr<JsonLinesFile>(new JsonLinesFile(descriptor, path));
}

JsonLinesFile::JsonLinesFile(int descriptor, std::string path)
    : descriptor_(descriptor), path_(std::move(path)) {}

JsonLinesFile::~JsonLinesFile() { (void)close(descriptor_); }

absl::Status JsonLinesFile::Report(const StepMetrics& metrics) {
  return WriteAll(descriptor_, path_, JsonLine(metrics));
}

}  // namespace panthera
