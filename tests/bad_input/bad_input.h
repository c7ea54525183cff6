// Bad input of every kind, given to the real program: what is wrong must be named.
#ifndef PANTHERA_TESTS_BAD_INPUT_BAD_INPUT_H_
#define PANTHERA_TESTS_BAD_INPUT_BAD_INPUT_H_

#include <functional>
#include <string>
#include <vector>

#include "tests/bad_input/workspace.h"

namespace panthera::testing {

struct BadInput {
  // In the words of the table of errors: "an unknown key".
  std::string what;
  // Of the program.
  std::vector<std::string> arguments;
  // What the message must name: the file, with its line where there is one, or the key.
  std::string names;
  // What of the message tells the way out.
  std::string fix;
  // Spoils one thing; nothing where the arguments themselves are bad.
  std::function<void(const Workspace&)> spoil = {};
  // A start under mpirun costs more, but shows that all ranks end, with one message among them.
  int ranks = 1;
  Workspace::Contents contents = Workspace::Contents::kData;
  int exit_code = 2;
  // Lines that are to stand before the message: what the program was at.
  std::string progress = {};
};

// Runs every case and expects of each that it
//   - ends before a deadline, every rank with the exit code;
//   - prints one line, which names the place and the way out;
//   - leaves every file as it was, and no file more;
// and that launcher/errors.md has these messages under the heading `subject`. With the environment
// variable PANTHERA_WRITE_ERROR_TABLE set, as the build target `error_table` does, that part of the
// file is written instead of compared.
void ExpectNamed(const std::string& subject, const std::vector<BadInput>& cases);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_BAD_INPUT_BAD_INPUT_H_
