// `mpirun -n RANKS panthera train CONFIG` as a process of its own, to be watched and ended.
#ifndef PANTHERA_TESTS_DEATHS_JOB_H_
#define PANTHERA_TESTS_DEATHS_JOB_H_

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace panthera::testing {

// Waits until `condition` holds, looking every few milliseconds; false if that takes too long.
bool WaitUntil(const std::function<bool()>& condition,
               std::chrono::seconds patience = std::chrono::seconds(60));

struct JobOptions {
  int ranks = 2;
  std::string config;
  std::vector<std::string> settings = {};  // of --set
  std::vector<std::string> mpirun_options = {};
  // Where rank 0 is to stand still: part of the path of a file that it opens. Empty: nowhere.
  std::string gate = "";
};

class Job {
 public:
  // Starts. Files of the job itself (its output, its gate) go to `directory`, which must be empty.
  Job(const JobOptions& options, const std::string& directory);
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  // Kills what is left.
  ~Job();

  pid_t mpirun() const { return mpirun_; }
  // The processes of the ranks that have been started and have not ended, by rank.
  std::map<int, pid_t> Ranks();
  // The ranks' processes, once all have been started.
  std::map<int, pid_t> WaitForRanks();

  // Waits until rank 0 stands at the gate.
  bool WaitForGate();
  void OpenGate();

  // What mpirun and the ranks have printed so far.
  std::string Output() const;
  bool WaitForOutput(const std::string& text);

  // Waits for the end of mpirun and of all ranks that Ranks has ever seen. mpirun's exit code, or
  // 128 + signal; nothing if the end does not come in time.
  std::optional<int> WaitForEnd(std::chrono::seconds patience = std::chrono::seconds(60));

 private:
  void Reap();
  bool HasEnded(pid_t pid) const;

  int num_ranks_;
  std::string output_path_;
  std::string gate_directory_;
  pid_t mpirun_ = -1;
  std::optional<int> exit_code_;
  std::map<int, pid_t> seen_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_DEATHS_JOB_H_
