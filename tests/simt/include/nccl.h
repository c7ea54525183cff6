// Stands in for NVIDIA's NCCL under the emulation of CUDA: ranks are threads of one process.
// Declares what Panthera uses of it; names, values and meanings are those of the NCCL 2 user guide.
//
// A call is enqueued and does its work when its stream comes to it: only then is the memory of the
// senders read, so a wait that is missing shows as wrong data. Calls on one communicator are done
// in the order in which they were made, also on different streams. There a rank blocks until its
// peers' streams have come as far. When a peer has destroyed or aborted its communicator instead,
// the call ends without moving anything and ncclCommGetAsyncError reports a remote error; the real
// one would stand still until it is aborted.
#ifndef PANTHERA_TESTS_SIMT_INCLUDE_NCCL_H_
#define PANTHERA_TESTS_SIMT_INCLUDE_NCCL_H_

#include <cuda_runtime.h>

#include <cstddef>

#define NCCL_UNIQUE_ID_BYTES 128

struct ncclUniqueId {
  char internal[NCCL_UNIQUE_ID_BYTES];
};
struct ncclComm;
using ncclComm_t = ncclComm*;

enum ncclResult_t {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInternalError = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6,
  ncclInProgress = 7,
};
enum ncclDataType_t { ncclUint8 = 1 };

ncclResult_t ncclGetVersion(int* version);
const char* ncclGetErrorString(ncclResult_t result);
const char* ncclGetLastError(ncclComm_t comm);

ncclResult_t ncclGetUniqueId(ncclUniqueId* id);
// Blocks until all ranks have come; an error if that takes a minute.
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error);
// Does all calls made so far.
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);

ncclResult_t ncclGroupStart();
// The sends and receives since ncclGroupStart, which must be of one communicator and stream, are
// one call, which every rank of the communicator must make. At most one of each for each peer.
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream);

namespace simt {

// The calling thread's next ncclGetUniqueId fails, as where there is no network.
void FailNextUniqueId();

}  // namespace simt

#endif  // PANTHERA_TESTS_SIMT_INCLUDE_NCCL_H_
