#include "launcher/world.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "launcher/device_choice.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/mpi_communicator.h"
#include "runtime/comm/mpi_host_group.h"
#include "runtime/comm/nccl_communicator.h"
#include "runtime/comm/nccl_environment.h"
#include "runtime/comm/plan_communicator.h"
#include "runtime/comm/self_communicator.h"

namespace panthera {
namespace {

// More cores than any machine has today.
constexpr size_t kMostCores = 1 << 16;

// 1 for the cores that this process may run on; a launcher may have bound it to a few. All 0 where
// the system does not tell.
std::vector<int32_t> AllowedCores() {
  std::vector<int32_t> allowed(kMostCores);
  const auto free_set = [](cpu_set_t* set) { CPU_FREE(set); };
  const std::unique_ptr<cpu_set_t, decltype(free_set)> set(CPU_ALLOC(kMostCores));
  const size_t bytes = CPU_ALLOC_SIZE(kMostCores);
  CPU_ZERO_S(bytes, set.get());
  if (sched_getaffinity(0, bytes, set.get()) == 0) {
    for (size_t core = 0; core < kMostCores; ++core) {
      allowed[core] = CPU_ISSET_S(core, bytes, set.get()) ? 1 : 0;
    }
  }
  return allowed;
}

// The ranks of one axis: those with the same color.
struct AxisRanks {
  int size;
  int color;
};

AxisRanks DataAxis(const Mesh& mesh) { return {mesh.data_size, mesh.tensor_rank}; }
AxisRanks TensorAxisOf(const Mesh& mesh) { return {mesh.tensor_size, mesh.data_rank}; }

// For memory that MPI takes.
std::unique_ptr<Communicator> ConnectMpi(const MpiRuntime& runtime, const AxisRanks& axis) {
  if (axis.size == 1) {
    return std::make_unique<SelfCommunicator>();
  }
  return CreateMpiCommunicator(runtime, axis.color);
}

// Makes `on_device` a communicator for the world's GPU, and `on_host` one for host memory.
absl::Status ConnectNccl(const MpiRuntime& runtime, const World& world, const AxisRanks& axis,
                         std::unique_ptr<Communicator>& on_device,
                         std::unique_ptr<Communicator>& on_host) {
  if (axis.size == 1) {
    on_device = std::make_unique<SelfCommunicator>();
    return absl::OkStatus();
  }
  const std::unique_ptr<HostGroup> members = CreateMpiHostGroup(runtime, axis.color);
  absl::StatusOr<std::unique_ptr<Communicator>> nccl =
      CreateNcclCommunicator(*members, world.device);
  RETURN_IF_ERROR(Agree(*world.host, nccl.status()));
  on_device = *std::move(nccl);
  on_host = CreateMpiCommunicator(runtime, axis.color);
  return absl::OkStatus();
}

absl::Status ConnectNccl(const MpiRuntime& runtime, const DeviceAssignment& assignment,
                         World& world) {
  const absl::StatusOr<int> version = NcclVersion();
  RETURN_IF_ERROR(Agree(*world.host, version.status()));
  if (assignment.most_sharers > 1) {
    const JobSpan span =
        runtime.local_size() == runtime.size() ? JobSpan::kOneHost : JobSpan::kManyHosts;
    SetMissing(NcclSharedGpuEnvironment(*version, runtime.rank(), span));
  }
  RETURN_IF_ERROR(ConnectNccl(runtime, world, DataAxis(world.mesh), world.data_parallel,
                              world.data_parallel_on_host));
  return ConnectNccl(runtime, world, TensorAxisOf(world.mesh), world.tensor_parallel,
                     world.tensor_parallel_on_host);
}

}  // namespace

std::unique_ptr<HostGroup> ConnectHosts(const MpiRuntime& runtime) {
  if (runtime.size() == 1) {
    return std::make_unique<SelfHostGroup>();
  }
  return CreateMpiHostGroup(runtime);
}

absl::StatusOr<World> ConnectWorld(const MpiRuntime& runtime, const ParallelOptions& options,
                                   const DeviceOptions& device, std::unique_ptr<HostGroup> host) {
  World world;
  ASSIGN_OR_RETURN(world.mesh, Mesh::Create(options, runtime.rank(), runtime.size()));
  world.ranks_on_host = runtime.local_size();
  world.host = std::move(host);
  const std::vector<VisibleGpus> gpus = GatherVisibleGpus(*world.host, device);
  std::vector<std::string> hosts;
  for (const VisibleGpus& rank : gpus) {
    hosts.push_back(rank.host);
  }
  world.tensor_ranks_share_hosts = NeighboursShareHosts(hosts, world.mesh.tensor_size);
  ASSIGN_OR_RETURN(const DeviceAssignment assignment, AssignDevices(device, gpus));
  world.device = assignment.devices[static_cast<size_t>(runtime.rank())];
  world.ranks_on_gpu = assignment.most_sharers;
  const bool uses_nccl = world.device.is_cuda() && device.sharing != DeviceSharing::kMpi;
  if (uses_nccl && runtime.size() > 1) {
    RETURN_IF_ERROR(ConnectNccl(runtime, assignment, world));
  } else {
    world.data_parallel = ConnectMpi(runtime, DataAxis(world.mesh));
    world.tensor_parallel = ConnectMpi(runtime, TensorAxisOf(world.mesh));
  }
  return world;
}

absl::StatusOr<World> PlanWorld(const ParallelOptions& options, int ranks, int tensor_rank) {
  World world;
  ASSIGN_OR_RETURN(world.mesh, Mesh::Create(options, tensor_rank, ranks));
  CHECK_EQ(world.mesh.data_rank, 0);
  world.device = {DeviceKind::kMeta, 0};
  world.host = std::make_unique<PlanHostGroup>(tensor_rank, ranks);
  world.data_parallel =
      std::make_unique<PlanCommunicator>(world.mesh.data_rank, world.mesh.data_size);
  world.tensor_parallel =
      std::make_unique<PlanCommunicator>(world.mesh.tensor_rank, world.mesh.tensor_size);
  return world;
}

bool NeighboursShareHosts(std::span<const std::string> hosts, int tensor_size) {
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    const size_t first = rank - rank % static_cast<size_t>(tensor_size);
    if (hosts[rank] != hosts[first]) {
      return false;
    }
  }
  return true;
}

int ThreadsPerRank(std::span<const int32_t> own, std::span<const int32_t> workers) {
  CHECK_EQ(own.size(), workers.size());
  double share = 0;
  for (size_t core = 0; core < own.size(); ++core) {
    if (own[core] != 0) {
      share += 1.0 / workers[core];
    }
  }
  // Equal shares add up to a whole number but for rounding.
  constexpr double kRounding = 1e-6;
  return std::max(1, static_cast<int>(share + kRounding));
}

void ShareCores(const MpiRuntime& runtime) {
  const std::vector<int32_t> own = AllowedCores();
  std::vector<int32_t> workers = own;
  runtime.SumOverHost(workers);
  if (std::getenv("OMP_NUM_THREADS") != nullptr) {
    return;
  }
  omp_set_num_threads(ThreadsPerRank(own, workers));
}

}  // namespace panthera
