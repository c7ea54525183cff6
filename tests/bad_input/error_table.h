#ifndef PANTHERA_TESTS_BAD_INPUT_ERROR_TABLE_H_
#define PANTHERA_TESTS_BAD_INPUT_ERROR_TABLE_H_

#include <string>
#include <vector>

namespace panthera::testing {

// One line of launcher/errors.md.
struct ErrorRow {
  std::string what;
  std::string message;
  int exit_code;
};

// Expects that launcher/errors.md has exactly these rows under the heading `subject`; writes them
// there instead if the environment variable PANTHERA_WRITE_ERROR_TABLE is set.
void ExpectInErrorTable(const std::string& subject, const std::vector<ErrorRow>& rows);

// Expects that the file has the headings `subjects` in this order, and no other; writes an empty
// table of them instead if the environment variable is set.
void ExpectErrorTableOf(const std::vector<std::string>& subjects);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_BAD_INPUT_ERROR_TABLE_H_
