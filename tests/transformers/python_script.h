#ifndef PANTHERA_TESTS_TRANSFORMERS_PYTHON_SCRIPT_H_
#define PANTHERA_TESTS_TRANSFORMERS_PYTHON_SCRIPT_H_

#include <string>
#include <vector>

namespace panthera::testing {

enum class ScriptVerdict { kEqual, kDifferent, kCannotRun };

struct ScriptResult {
  ScriptVerdict verdict;
  std::string output;  // standard output and error; with kCannotRun the reason
};

// Runs a script of this folder with the interpreter that the environment variable
// PANTHERA_TEST_PYTHON names, else python3. Exit status 77 of the script, or no interpreter, is
// kCannotRun. Blocks until the script ends.
ScriptResult RunPythonScript(const std::string& script, const std::vector<std::string>& arguments);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_TRANSFORMERS_PYTHON_SCRIPT_H_
