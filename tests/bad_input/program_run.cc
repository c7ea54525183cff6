#include "tests/bad_input/program_run.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>

#include "runtime/base/check.h"
#include "tests/support/temp_dir.h"
#include <sys/wait.h>

namespace panthera::testing {
namespace {

using Clock = std::chrono::steady_clock;

// A refusal takes a fraction of a second; the rest is for sanitizers and loaded machines.
constexpr std::chrono::seconds kDeadline(90);
// For mpirun to end its workers when it is asked to.
constexpr std::chrono::seconds kGrace(5);

// A child process in a process group of its own, and the reading end of what it prints.
struct Child {
  pid_t pid;
  int output;
};

Child Start(const std::string& directory, std::vector<std::string> command) {
  std::vector<char*> argv;
  for (std::string& word : command) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::array<int, 2> ends{};
  CHECK_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t pid = fork();
  CHECK_GE(pid, 0);
  if (pid == 0) {
    // Only calls that are safe between fork and exec.
    const int nothing = open("/dev/null", O_RDONLY);
    if (setpgid(0, 0) == 0 && chdir(directory.c_str()) == 0 && dup2(nothing, STDIN_FILENO) >= 0 &&
        dup2(ends[1], STDOUT_FILENO) >= 0 && dup2(ends[1], STDERR_FILENO) >= 0) {
      execvp(argv[0], argv.data());
    }
    _exit(127);
  }
  close(ends[1]);
  return {pid, ends[0]};
}

// Appends what the child prints until it and those that it started have closed their output.
// Returns false at the deadline.
bool ReadAll(int descriptor, Clock::time_point deadline, std::string& output) {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd ready{descriptor, POLLIN, 0};
    if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) <= 0) {
      return false;
    }
    std::array<char, 4096> block;
    const ssize_t count = read(descriptor, block.data(), block.size());
    if (count <= 0) {
      return true;
    }
    output.append(block.data(), static_cast<size_t>(count));
  }
}

int ExitCode(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

// Runs `command` to its end or to the deadline; returns its exit code.
int Run(const std::string& directory, const std::vector<std::string>& command, ProgramRun& run) {
  const Child child = Start(directory, command);
  run.timed_out = !ReadAll(child.output, Clock::now() + kDeadline, run.output);
  if (run.timed_out) {
    kill(child.pid, SIGTERM);
    ReadAll(child.output, Clock::now() + kGrace, run.output);
    kill(-child.pid, SIGKILL);
  }
  close(child.output);
  int wait_status = 0;
  CHECK_EQ(waitpid(child.pid, &wait_status, 0), child.pid);
  return ExitCode(wait_status);
}

}  // namespace

ProgramRun RunProgram(const std::string& directory, const std::vector<std::string>& arguments,
                      int ranks) {
  ProgramRun run;
  std::vector<std::string> command = {PANTHERA_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  if (ranks == 1) {
    run.exit_codes = {Run(directory, command, run)};
    return run;
  }
  const TempDir codes;
  std::vector<std::string> job = {
      PANTHERA_MPIEXEC, "-n", std::to_string(ranks), "--bind-to", "none", "sh", "-c"};
  job.push_back("\"$0\" \"$@\"; echo $? > '" + codes.path() + "'/$OMPI_COMM_WORLD_RANK");
  job.insert(job.end(), command.begin(), command.end());
  Run(directory, job, run);
  for (int rank = 0; rank < ranks; ++rank) {
    int code = 0;
    if (std::ifstream(codes.File(std::to_string(rank))) >> code) {
      run.exit_codes.push_back(code);
    }
  }
  return run;
}

}  // namespace panthera::testing
