#ifndef PANTHERA_RUNTIME_COMM_NCCL_COMMUNICATOR_H_
#define PANTHERA_RUNTIME_COMM_NCCL_COMMUNICATOR_H_

#include <memory>

#include "absl/status/statusor.h"

#include "runtime/comm/communicator.h"
#include "runtime/comm/host_group.h"
#include "runtime/device/device.h"

namespace panthera {

// The version of the NCCL library that this program runs with, as NCCL counts: 22809 is 2.28.9. In
// a build without NCCL an error that says what to do. May be called before the environment is set.
absl::StatusOr<int> NcclVersion();

// A communicator over the members of `ranks`, in their order, that moves tensors of `device`, a GPU
// of this rank's own (see comm/nccl_environment.h for sharing one). Blocks on all members, which
// must all make this call, and connects them, so that the first call takes no longer and no more
// memory than others. `ranks` is not used afterwards. The error is the same on every rank.
//
// Calls enqueue on their stream and never block the host. Tensors travel as bytes with 64-bit
// counts. NCCL is asked to move data, never to sum it: what it chooses by itself, such as
// algorithms, protocols and the order of a ring, cannot change a result, and none of its variables
// has to be set.
//
// A call that NCCL refuses and a peer that is lost show in Health(). The communicator must be
// destroyed on all ranks, after their streams are done, and then waits until all peers are done
// too. If it is not healthy it aborts instead, which ends what still runs on the device and waits
// for nobody; that must come before the wait for a stream on which its calls stand.
absl::StatusOr<std::unique_ptr<Communicator>> CreateNcclCommunicator(HostGroup& ranks,
                                                                     Device device);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_NCCL_COMMUNICATOR_H_
