#include "launcher/world.h"

#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

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

int OnlineCores() {
  const auto online = sysconf(_SC_NPROCESSORS_ONLN);
  return online < 1 ? 1 : static_cast<int>(online);
}

// The cores that this process may run on; a launcher may have bound it to a few.
int AllowedCores() {
  const auto free_set = [](cpu_set_t* set) { CPU_FREE(set); };
  // The kernel refuses (EINVAL) a set that is smaller than its own, whose size it does not tell.
  constexpr size_t kMostCores = 1 << 20;
  for (size_t cores = 1024; cores <= kMostCores; cores *= 2) {
    const std::unique_ptr<cpu_set_t, decltype(free_set)> set(CPU_ALLOC(cores));
    const size_t bytes = CPU_ALLOC_SIZE(cores);
    if (set != nullptr && sched_getaffinity(0, bytes, set.get()) == 0) {
      return CPU_COUNT_S(bytes, set.get());
    }
    if (errno != EINVAL) {
      break;
    }
  }
  return OnlineCores();
}

}  // namespace

std::unique_ptr<HostGroup> ConnectHosts(const MpiRuntime& runtime) {
  if (runtime.size() == 1) {
    return std::make_unique<SelfHostGroup>();
  }
  return CreateMpiHostGroup(runtime);
}

absl::StatusOr<World> ConnectWorld(const MpiRuntime& runtime, const ParallelOptions& options,
                                   std::unique_ptr<HostGroup> host) {
  World world;
  ASSIGN_OR_RETURN(world.mesh, Mesh::Create(options, runtime.rank(), runtime.size()));
  RETURN_IF_ERROR(CheckTensorAxis(world.mesh));
  world.ranks_on_host = runtime.local_size();
  world.host = std::move(host);
  if (runtime.size() == 1) {
    world.data_parallel = std::make_unique<SelfCommunicator>();
    return world;
  }
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

int ThreadsPerRank(int online, int allowed, int local_size) {
  const bool bound = allowed < online && int64_t{allowed} * local_size <= online;
  return std::max(1, bound ? allowed : allowed / local_size);
}

void ShareCores(const MpiRuntime& runtime) {
  if (std::getenv("OMP_NUM_THREADS") != nullptr) {
    return;
  }
  omp_set_num_threads(ThreadsPerRank(OnlineCores(), AllowedCores(), runtime.local_size()));
}

}  // namespace panthera
