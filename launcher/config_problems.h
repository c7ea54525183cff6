#ifndef PANTHERA_LAUNCHER_CONFIG_PROBLEMS_H_
#define PANTHERA_LAUNCHER_CONFIG_PROBLEMS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace panthera {

// The command line argument of an override: "--set train.steps=10".
std::string SetFlag(const std::string& override_text);

// Collects the mistakes of a configuration: those of its file and those of the overrides.
class ConfigProblems {
 public:
  ConfigProblems(std::string file, std::span<const std::string> overrides);

  // `source` is the SetFlag of an override; anything else, or null, stands for the file. Lines
  // count from 1; 0 stands for the first.
  void Add(const std::string* source, int64_t line, const std::string& text);

  // One line per mistake, "FILE:LINE: text" or "--set KEY=VALUE: text": the file's by line, then
  // the overrides' in their order.
  absl::Status ToStatus() const;

 private:
  struct Problem {
    size_t source;  // 0: the file; i + 1: override i
    int64_t line;
    std::string text;
  };

  std::string file_;
  std::vector<std::string> flags_;
  std::vector<Problem> problems_;
};

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_CONFIG_PROBLEMS_H_
