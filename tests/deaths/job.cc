#include "tests/deaths/job.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "runtime/base/check.h"
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

namespace panthera::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook(2);

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct ProcessFacts {
  char state = '?';
  pid_t parent = 0;
};

// Nothing if there is no such process.
std::optional<ProcessFacts> FactsOf(pid_t pid) {
  const std::string stat = ReadAll("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) {
    return std::nullopt;
  }
  ProcessFacts facts;
  std::istringstream rest(stat.substr(name_end + 1));
  rest >> facts.state >> facts.parent;
  return facts;
}

// The rank of a process that mpirun has started; nothing before it has become the program.
std::optional<int> RankOf(pid_t pid) {
  const std::string directory = "/proc/" + std::to_string(pid);
  std::error_code error;
  if (std::filesystem::read_symlink(directory + "/exe", error) != PANTHERA_PROGRAM) {
    return std::nullopt;
  }
  const std::string environment = '\0' + ReadAll(directory + "/environ");
  const std::string key = std::string(1, '\0') + "OMPI_COMM_WORLD_RANK=";
  const size_t found = environment.find(key);
  if (found == std::string::npos) {
    return std::nullopt;
  }
  return std::stoi(environment.substr(found + key.size()));
}

std::vector<std::string> CommandOf(const JobOptions& options) {
  std::vector<std::string> command = {PANTHERA_MPIEXEC, "--bind-to", "none", "-n",
                                      std::to_string(options.ranks)};
  command.insert(command.end(), options.mpirun_options.begin(), options.mpirun_options.end());
  command.insert(command.end(), {PANTHERA_PROGRAM, "train", options.config});
  for (const std::string& setting : options.settings) {
    command.insert(command.end(), {"--set", setting});
  }
  return command;
}

[[noreturn]] void Execute(const std::vector<std::string>& command, const std::string& output) {
  const int descriptor = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(descriptor, STDOUT_FILENO);
  dup2(descriptor, STDERR_FILENO);
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

bool WaitUntil(const std::function<bool()>& condition, std::chrono::seconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  while (!condition()) {
    if (Clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(kLook);
  }
  return true;
}

Job::Job(const JobOptions& options, const std::string& directory)
    : num_ranks_(options.ranks), output_path_(directory + "/output"), gate_directory_(directory) {
  // Ranks that outlive mpirun become children of this process, which then learns of their end.
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  CHECK(std::filesystem::create_directories(directory)) << directory;
  if (!options.gate.empty()) {
    CHECK_EQ(mkfifo((directory + "/reached").c_str(), 0600), 0);
    CHECK_EQ(mkfifo((directory + "/go").c_str(), 0600), 0);
  }
  const std::vector<std::string> command = CommandOf(options);
  mpirun_ = fork();
  CHECK_GE(mpirun_, 0);
  if (mpirun_ == 0) {
    if (!options.gate.empty()) {
      setenv("PANTHERA_GATE", options.gate.c_str(), 1);
      setenv("PANTHERA_GATE_DIR", directory.c_str(), 1);
      setenv("LD_PRELOAD", PANTHERA_GATE_LIBRARY, 1);
    }
    Execute(command, output_path_);
  }
}

Job::~Job() {
  (void)Ranks();
  for (const auto& [rank, pid] : seen_) {
    if (!HasEnded(pid)) {
      kill(pid, SIGKILL);
    }
  }
  if (!exit_code_.has_value()) {
    kill(mpirun_, SIGKILL);
  }
  (void)WaitForEnd();
}

std::map<int, pid_t> Job::Ranks() {
  std::map<int, pid_t> ranks;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    const auto pid = static_cast<pid_t>(std::stol(name));
    const std::optional<ProcessFacts> facts = FactsOf(pid);
    if (!facts.has_value() || facts->parent != mpirun_ || facts->state == 'Z') {
      continue;
    }
    if (const std::optional<int> rank = RankOf(pid); rank.has_value()) {
      ranks[*rank] = pid;
      seen_[*rank] = pid;
    }
  }
  return ranks;
}

std::map<int, pid_t> Job::WaitForRanks() {
  CHECK(WaitUntil([this] { return static_cast<int>(Ranks().size()) == num_ranks_; })) << Output();
  return seen_;
}

bool Job::WaitForGate() {
  // Opened without blocking, so that a job that ends before the gate is noticed.
  const int descriptor = open((gate_directory_ + "/reached").c_str(), O_RDONLY | O_NONBLOCK);
  CHECK_GE(descriptor, 0);
  char byte = 0;
  const bool reached = WaitUntil([&] { return read(descriptor, &byte, 1) == 1; });
  close(descriptor);
  return reached;
}

void Job::OpenGate() {
  const int descriptor = open((gate_directory_ + "/go").c_str(), O_WRONLY);
  CHECK_GE(descriptor, 0);
  CHECK_EQ(write(descriptor, "", 1), 1);
  close(descriptor);
}

std::string Job::Output() const { return ReadAll(output_path_); }

bool Job::WaitForOutput(const std::string& text) {
  return WaitUntil([&] { return Output().find(text) != std::string::npos; });
}

void Job::Reap() {
  int status = 0;
  pid_t ended = 0;
  while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
    if (ended == mpirun_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
  }
}

bool Job::HasEnded(pid_t pid) const {
  const std::optional<ProcessFacts> facts = FactsOf(pid);
  return !facts.has_value() || facts->state == 'Z';
}

std::optional<int> Job::WaitForEnd(std::chrono::seconds patience) {
  const bool ended = WaitUntil(
      [this] {
        Reap();
        if (!exit_code_.has_value()) {
          return false;
        }
        for (const auto& [rank, pid] : seen_) {
          if (!HasEnded(pid)) {
            return false;
          }
        }
        return true;
      },
      patience);
  return ended ? exit_code_ : std::nullopt;
}

}  // namespace panthera::testing
