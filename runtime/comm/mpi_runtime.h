#ifndef PANTHERA_RUNTIME_COMM_MPI_RUNTIME_H_
#define PANTHERA_RUNTIME_COMM_MPI_RUNTIME_H_

#include <cstdint>
#include <vector>

namespace panthera {

// MPI of this process, from construction to destruction: one per process. A process that was not
// started by mpirun or srun is a job of one rank.
//
// A call that MPI reports as failed ends the job at once with kMpiFailureExitCode: no rank can go
// on without its peers.
class MpiRuntime {
 public:
  static constexpr int kMpiFailureExitCode = 70;

  MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;
  // Blocks until all ranks have come here. A rank that cannot expect the others to come must call
  // Abort instead. All communicators and groups must be gone.
  ~MpiRuntime();

  int rank() const { return rank_; }
  int size() const { return size_; }
  // The place of this rank among the ranks of its host: which GPU or share of the cores is its own.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  // values[i] becomes its sum over the ranks of this host, which all give as many. Blocks on them.
  void SumOverHost(std::vector<int32_t>& values) const;

  // Ends all ranks of the job without waiting for any of them, within seconds even where MPI itself
  // is stuck. May be called from any thread, and before or after the life of the runtime: then only
  // this process ends. What the launcher returns is its own affair: Open MPI's mpirun passes
  // `exit_code` on.
  [[noreturn]] static void Abort(int exit_code);

 private:
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_MPI_RUNTIME_H_
