// The NCCL communicator in a build without NCCL.
#include "absl/status/status.h"

#include "runtime/comm/nccl_communicator.h"

namespace panthera {
namespace {

absl::Status Absent() {
  return absl::UnimplementedError(
      "this program was built without NCCL, through which several GPUs work together; build it "
      "where nccl.h and libnccl are found (packages libnccl2 and libnccl-dev of NVIDIA), or let "
      "the data travel through host memory with --set device.sharing=mpi");
}

}  // namespace

absl::StatusOr<int> NcclVersion() { return Absent(); }

absl::StatusOr<std::unique_ptr<Communicator>> CreateNcclCommunicator(HostGroup&, Device) {
  return Absent();
}

}  // namespace panthera
