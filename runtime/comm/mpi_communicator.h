#ifndef PANTHERA_RUNTIME_COMM_MPI_COMMUNICATOR_H_
#define PANTHERA_RUNTIME_COMM_MPI_COMMUNICATOR_H_

#include <cstdint>
#include <memory>

#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi_runtime.h"

namespace panthera {

struct MpiCommunicatorOptions {
  // The most bytes that one MPI call moves between two ranks; more are moved piece by piece. MPI
  // counts with an int, so at most 2^31 - 1.
  int64_t max_piece_bytes = int64_t{1} << 30;
  // Pinned host memory through which tensors of a GPU travel, for each direction. At least one byte
  // per rank.
  int64_t staging_bytes = int64_t{32} << 20;
};

// A communicator over all ranks that pass the same color, in the order of their ranks in the job.
// Every rank of the job must make the same sequence of these calls. Blocks on all ranks; the result
// must die before the runtime, and on all ranks.
//
// Moves host memory as bytes. Tensors of a GPU are copied to pinned host memory and from there on
// arrival, piece by piece, and the host waits for each piece: slow, but any number of ranks can
// share a GPU. That memory is taken at the first Allocate() for a GPU, outlives the buffers given
// out and therefore is in no ledger but the communicator's own.
std::unique_ptr<Communicator> CreateMpiCommunicator(const MpiRuntime& runtime, int color,
                                                    const MpiCommunicatorOptions& options = {});

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_MPI_COMMUNICATOR_H_
