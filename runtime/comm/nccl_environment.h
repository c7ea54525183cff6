#ifndef PANTHERA_RUNTIME_COMM_NCCL_ENVIRONMENT_H_
#define PANTHERA_RUNTIME_COMM_NCCL_ENVIRONMENT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace panthera {

// Where the ranks of a job run.
enum class JobSpan : uint8_t { kOneHost, kManyHosts };

struct EnvironmentVariable {
  std::string name;
  std::string value;

  friend bool operator==(const EnvironmentVariable& a, const EnvironmentVariable& b) = default;
};

// What NCCL of `version` (as NcclVersion() gives it) must find in the environment of rank `rank` so
// that several ranks may use one GPU, which it refuses otherwise.
//
// From 2.30 on a variable permits it, and data stays inside the GPU. Before that NCCL must take
// every rank for a host of its own, by NCCL_HOSTID, and data goes through sockets, even inside one
// GPU. Every rank must be a process of its own. NVIDIA supports neither: it is for tests of real
// NCCL on machines with too few GPUs, and kernels of several ranks that wait for each other on one
// GPU may stand still when it runs out of multiprocessors, for which reason each is kept small.
std::vector<EnvironmentVariable> NcclSharedGpuEnvironment(int version, int rank, JobSpan span);

// Sets those of `variables` that the user has not set. Before the first communicator is created.
void SetMissing(const std::vector<EnvironmentVariable>& variables);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_NCCL_ENVIRONMENT_H_
