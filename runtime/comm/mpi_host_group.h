#ifndef PANTHERA_RUNTIME_COMM_MPI_HOST_GROUP_H_
#define PANTHERA_RUNTIME_COMM_MPI_HOST_GROUP_H_

#include <memory>

#include "runtime/comm/host_group.h"
#include "runtime/comm/mpi_runtime.h"

namespace panthera {

// The control plane of all ranks that pass the same color, in the order of their ranks in the job.
// The messages of one call must have fewer than 2^31 bytes in all. Every rank of the job must make
// the same sequence of these calls. Blocks on all ranks; the result must die before the runtime.
std::unique_ptr<HostGroup> CreateMpiHostGroup(const MpiRuntime& runtime, int color = 0);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_MPI_HOST_GROUP_H_
