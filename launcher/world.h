#ifndef PANTHERA_LAUNCHER_WORLD_H_
#define PANTHERA_LAUNCHER_WORLD_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

#include "launcher/progress.h"
#include "launcher/run_options.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"
#include "runtime/comm/mesh.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/comm/mpi_runtime.h"
#include "runtime/device/device.h"

namespace panthera {

// A worker's place in its job: its mesh coordinates, its device and its ways to the other workers.
// Built once at start and passed down; whatever is distributed takes its communicator from here.
// Communicators of GPUs must be destroyed after the streams on which their calls stand are done.
struct World {
  Mesh mesh;
  Device device;
  int ranks_on_host = 1;
  // The most that compute on one GPU.
  int ranks_on_gpu = 1;
  // Whether those that share layers lie on one host each; over a network they are slow.
  bool tensor_ranks_share_hosts = true;
  std::unique_ptr<HostGroup> host;
  // The ranks of each axis, for tensors of `device`. Never null.
  std::unique_ptr<Communicator> data_parallel;
  std::unique_ptr<Communicator> tensor_parallel;
  // The same ranks for host memory, where those do not take it; else null.
  std::unique_ptr<Communicator> data_parallel_on_host;
  std::unique_ptr<Communicator> tensor_parallel_on_host;
  // Where the worker tells what it is doing; null: nobody wants to know.
  Progress* progress = nullptr;

  MeshAxes axes() const { return {*data_parallel, *tensor_parallel}; }
  // For the few numbers that the hosts exchange between steps: takes tensors of kCpu on a stream of
  // kCpu. The same as axes() except with NCCL.
  MeshAxes host_axes() const { return {host_data_parallel(), host_tensor_parallel()}; }
  Communicator& host_data_parallel() const {
    return data_parallel_on_host != nullptr ? *data_parallel_on_host : *data_parallel;
  }
  Communicator& host_tensor_parallel() const {
    return tensor_parallel_on_host != nullptr ? *tensor_parallel_on_host : *tensor_parallel;
  }

  void Enter(Phase phase, int64_t step = 0) const {
    if (progress != nullptr) {
      progress->Enter(phase, step);
    }
  }
  void Beat() const {
    if (progress != nullptr) {
      progress->Beat();
    }
  }
};

// The control plane of the processes that mpirun or srun started, or of one started alone. Blocks
// on all ranks.
std::unique_ptr<HostGroup> ConnectHosts(const MpiRuntime& runtime);

// The world of the same processes, which must have the same options. Takes `host` from
// ConnectHosts. Finds every worker its device (AssignDevices), and on GPUs connects NCCL, or MPI
// with device.sharing = "mpi". Blocks on all ranks; the error is the same on all.
absl::StatusOr<World> ConnectWorld(const MpiRuntime& runtime, const ParallelOptions& options,
                                   const DeviceOptions& device, std::unique_ptr<HostGroup> host);

// The world of a rank of a job of `ranks` that is only planned: nothing is sent. The rank is the
// first on the data axis, where no other needs more, and `tensor_rank` on the tensor axis, where
// the first has the largest share of everything that cannot be shared evenly.
absl::StatusOr<World> PlanWorld(const ParallelOptions& options, int ranks, int tensor_rank = 0);

// Whether each `tensor_size` neighbours lie on one host; hosts[r] is that of rank r.
bool NeighboursShareHosts(std::span<const std::string> hosts, int tensor_size);

// How many threads a worker gets that may run on the cores i where own[i] is 1 while workers[i]
// workers of this host, itself included, may run on core i: its share of each core, together, at
// least 1. So workers that a launcher bound to cores of their own take them all, and workers that
// are confined to the same cores divide these.
int ThreadsPerRank(std::span<const int32_t> own, std::span<const int32_t> workers);

// Gives this worker its ThreadsPerRank, unless OMP_NUM_THREADS says otherwise. Blocks on the ranks
// of this host.
void ShareCores(const MpiRuntime& runtime);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_WORLD_H_
