#ifndef PANTHERA_LAUNCHER_WORLD_H_
#define PANTHERA_LAUNCHER_WORLD_H_

#include <memory>

#include "absl/status/statusor.h"

#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"
#include "runtime/comm/mesh.h"
#include "runtime/comm/mpi_runtime.h"
#include "runtime/device/device.h"

namespace panthera {

// A worker's place in its job: its mesh coordinates, its device and its ways to the other workers.
// Built once at start and passed down; whatever is distributed takes its communicator from here.
struct World {
  Mesh mesh;
  Device device;
  int ranks_on_host = 1;
  std::unique_ptr<HostGroup> host;
  std::unique_ptr<Communicator> data_parallel;
};

// The world of a process that mpirun or srun started, or of one started alone. Blocks on all ranks.
absl::StatusOr<World> ConnectWorld(const MpiRuntime& runtime, const ParallelOptions& options);

// The world of rank 0 of a job of `ranks` that is only planned: nothing is sent.
absl::StatusOr<World> PlanWorld(const ParallelOptions& options, int ranks);

// Gives this worker its share of the machine: as many threads as its cores divided by the workers
// on this host, unless OMP_NUM_THREADS says otherwise.
void ShareCores(const MpiRuntime& runtime);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_WORLD_H_
