#include "tests/deaths/run_record.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/step_directories.h"

namespace panthera::testing {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What is in RUN_DIR/checkpoints at this moment; a job may be changing it.
std::vector<std::string> CheckpointNames(const std::string& run_dir) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(CheckpointsDirectory(run_dir), error);
  while (!error && entry != std::filesystem::directory_iterator()) {
    names.push_back(entry->path().filename());
    entry.increment(error);
  }
  return names;
}

}  // namespace

int64_t NewestCheckpoint(const std::string& run_dir) {
  int64_t newest = 0;
  for (const std::string& name : CheckpointNames(run_dir)) {
    const auto directory = ParseStepDirectory(name);
    if (directory.has_value() && directory->ending.empty()) {
      newest = std::max(newest, directory->step);
    }
  }
  return newest;
}

bool SaveIsUnderWay(const std::string& run_dir) {
  const std::vector<std::string> names = CheckpointNames(run_dir);
  return std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.ends_with(kTemporaryEnding) || name.ends_with(kReplacedEnding);
  });
}

std::vector<std::string> Leftovers(const std::string& run_dir) {
  std::vector<std::string> leftovers;
  for (const std::string& name : CheckpointNames(run_dir)) {
    const auto directory = ParseStepDirectory(name);
    if (!directory.has_value() || !directory->ending.empty()) {
      leftovers.push_back(name);
    }
  }
  return leftovers;
}

int64_t CountMetricsLines(const std::string& run_dir) {
  const std::string text = ReadAll(run_dir + "/metrics.jsonl");
  return std::count(text.begin(), text.end(), '\n');
}

std::vector<std::string> TimelessMetrics(const std::string& run_dir) {
  std::vector<std::string> lines;
  const std::string text = ReadAll(run_dir + "/metrics.jsonl");
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    nlohmann::json line = nlohmann::json::parse(text.substr(begin, end - begin), nullptr, false);
    if (end == std::string::npos || !line.is_object()) {
      lines.emplace_back("broken");
      break;
    }
    for (const char* key : {"step_seconds", "tokens_per_second", "gemm_share"}) {
      line.erase(key);
    }
    lines.push_back(line.dump());
    begin = end + 1;
  }
  return lines;
}

std::map<std::string, std::string> TensorFiles(const std::string& run_dir, int64_t step) {
  std::map<std::string, std::string> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(CheckpointDirectory(run_dir, step))) {
    if (entry.path().extension() == ".safetensors") {
      files[entry.path().filename()] = ReadAll(entry.path());
    }
  }
  return files;
}

}  // namespace panthera::testing
