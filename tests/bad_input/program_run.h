#ifndef PANTHERA_TESTS_BAD_INPUT_PROGRAM_RUN_H_
#define PANTHERA_TESTS_BAD_INPUT_PROGRAM_RUN_H_

#include <string>
#include <vector>

namespace panthera::testing {

struct ProgramRun {
  // Still running at the deadline, and killed.
  bool timed_out = false;
  // One per rank that ended by itself; 128 + signal where a signal ended it.
  std::vector<int> exit_codes;
  // Standard output and standard error of all ranks, as they came.
  std::string output;
};

// Runs the `panthera` of this build in `directory` with `arguments`: as one process, or for more
// than one rank under mpirun.
//
// mpirun adds lines of its own about a worker that ends with a code other than 0. Here each worker
// runs under a shell that writes the code to a file and ends with 0, so that what is in `output`
// comes from panthera and every rank's own code is known.
ProgramRun RunProgram(const std::string& directory, const std::vector<std::string>& arguments,
                      int ranks);

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_BAD_INPUT_PROGRAM_RUN_H_
