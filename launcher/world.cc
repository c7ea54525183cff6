#include "launcher/world.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>

#include "runtime/base/status_macros.h"
#include "runtime/comm/mpi_communicator.h"
#include "runtime/comm/mpi_host_group.h"
#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"

namespace panthera {
namespace {

absl::Status CheckTensorAxis(const Mesh& mesh) {
  if (mesh.tensor_size > 1) {
    return absl::UnimplementedError(
        "parallel.tensor: this version has no tensor parallelism; use parallel.tensor = 1");
  }
  return absl::OkStatus();
}

// The cores that this process may run on; a launcher may have bound it to a few.
int AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

absl::StatusOr<World> ConnectWorld(const MpiRuntime& runtime, const ParallelOptions& options) {
  World world;
  ASSIGN_OR_RETURN(world.mesh, Mesh::Create(options, runtime.rank(), runtime.size()));
  RETURN_IF_ERROR(CheckTensorAxis(world.mesh));
  world.ranks_on_host = runtime.local_size();
  if (runtime.size() == 1) {
    world.host = std::make_unique<SelfHostGroup>();
    world.data_parallel = std::make_unique<SelfCommunicator>();
    return world;
  }
  world.host = CreateMpiHostGroup(runtime);
  world.data_parallel = CreateMpiCommunicator(runtime, world.mesh.tensor_rank);
  return world;
}

absl::StatusOr<World> PlanWorld(const ParallelOptions& options, int ranks) {
  World world;
  ASSIGN_OR_RETURN(world.mesh, Mesh::Create(options, 0, ranks));
  RETURN_IF_ERROR(CheckTensorAxis(world.mesh));
  world.device = {DeviceKind::kMeta, 0};
  world.host = std::make_unique<PlanHostGroup>(0, ranks);
  world.data_parallel =
      std::make_unique<PlanCommunicator>(world.mesh.data_rank, world.mesh.data_size);
  return world;
}

void ShareCores(const MpiRuntime& runtime) {
  if (std::getenv("OMP_NUM_THREADS") != nullptr) {
    return;
  }
  const int on_machine = omp_get_num_procs();
  const int allowed = AllowedCores();
  // A launcher that binds each worker to cores of its own has already divided the machine.
  const bool bound = allowed * runtime.local_size() <= on_machine;
  omp_set_num_threads(std::max(1, bound ? allowed : allowed / runtime.local_size()));
}

}  // namespace panthera
