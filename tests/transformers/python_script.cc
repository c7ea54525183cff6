#include "tests/transformers/python_script.h"

#include <array>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "runtime/base/check.h"
#include <sys/wait.h>

namespace panthera::testing {
namespace {

constexpr int kSkipStatus = 77;
// A shell's exit status for a command that it does not find.
constexpr int kNotFoundStatus = 127;

std::string Quoted(const std::string& word) {
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

}  // namespace

ScriptResult RunPythonScript(const std::string& script, const std::vector<std::string>& arguments) {
  const char* chosen = std::getenv("PANTHERA_TEST_PYTHON");
  const std::string python = chosen != nullptr ? chosen : "python3";
  std::string command = absl::StrCat(Quoted(python), " ", Quoted(PANTHERA_SCRIPTS "/" + script));
  for (const std::string& argument : arguments) {
    absl::StrAppend(&command, " ", Quoted(argument));
  }
  std::FILE* pipe = popen(absl::StrCat(command, " 2>&1").c_str(), "r");
  CHECK(pipe != nullptr) << command;
  std::string output;
  std::array<char, 4096> part = {};
  while (const size_t size = std::fread(part.data(), 1, part.size(), pipe)) {
    output.append(part.data(), size);
  }
  const int status = pclose(pipe);
  const int exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (exit_code == kSkipStatus || exit_code == kNotFoundStatus) {
    return {ScriptVerdict::kCannotRun,
            absl::StrCat(python, " cannot compare with transformers (PANTHERA_TEST_PYTHON chooses ",
                         "another interpreter): ", output)};
  }
  return {exit_code == 0 ? ScriptVerdict::kEqual : ScriptVerdict::kDifferent, output};
}

}  // namespace panthera::testing
