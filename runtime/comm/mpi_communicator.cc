#include "runtime/comm/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <limits>

#include "runtime/base/check.h"
#include "runtime/comm/mpi_check.h"

namespace panthera {
namespace {

// A run of bytes whose copies for successive ranks lie `stride` bytes apart.
class StridedBytes {
 public:
  StridedBytes(int64_t bytes, int64_t stride) {
    MPI_Datatype run = MPI_DATATYPE_NULL;
    CHECK_MPI(MPI_Type_contiguous(static_cast<int>(bytes), MPI_BYTE, &run));
    CHECK_MPI(MPI_Type_create_resized(run, 0, stride, &type_));
    CHECK_MPI(MPI_Type_commit(&type_));
    CHECK_MPI(MPI_Type_free(&run));
  }
  StridedBytes(const StridedBytes&) = delete;
  StridedBytes& operator=(const StridedBytes&) = delete;
  ~StridedBytes() { CHECK_MPI(MPI_Type_free(&type_)); }

  MPI_Datatype type() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(int rank, int size, MPI_Comm comm, const MpiCommunicatorOptions& options)
      : Communicator(rank, size), comm_(comm), max_piece_bytes_(options.max_piece_bytes) {
    CHECK_GE(max_piece_bytes_, 1);
    CHECK_LE(max_piece_bytes_, std::numeric_limits<int>::max());
  }
  ~MpiCommunicator() override { CHECK_MPI(MPI_Comm_free(&comm_)); }

 private:
  void DoAllToAll(const Tensor& send, Tensor recv, Stream&) override;
  void DoAllGather(const Tensor& shard, Tensor full, Stream&) override;
  void DoBroadcast(Tensor buffer, int root, Stream&) override;

  // Calls piece(begin, count) for the pieces of `bytes`.
  template <typename Piece>
  void ForEachPiece(int64_t bytes, const Piece& piece) const {
    for (int64_t begin = 0; begin < bytes; begin += max_piece_bytes_) {
      piece(begin, static_cast<int>(std::min(max_piece_bytes_, bytes - begin)));
    }
  }

  MPI_Comm comm_;
  int64_t max_piece_bytes_;
};

void MpiCommunicator::DoAllToAll(const Tensor& send, Tensor recv, Stream&) {
  CHECK(send.device().is_cpu()) << send.device();
  const int64_t row_bytes = send.bytes() / size();
  ForEachPiece(row_bytes, [&](int64_t begin, int count) {
    const StridedBytes piece(count, row_bytes);
    CHECK_MPI(MPI_Alltoall(send.bytes_data() + begin, 1, piece.type(), recv.bytes_data() + begin, 1,
                           piece.type(), comm_));
  });
}

void MpiCommunicator::DoAllGather(const Tensor& shard, Tensor full, Stream&) {
  CHECK(shard.device().is_cpu()) << shard.device();
  const int64_t row_bytes = shard.bytes();
  const bool in_place = shard.bytes_data() == full.bytes_data() + rank() * row_bytes;
  ForEachPiece(row_bytes, [&](int64_t begin, int count) {
    const StridedBytes piece(count, row_bytes);
    const void* from = in_place ? MPI_IN_PLACE : shard.bytes_data() + begin;
    CHECK_MPI(
        MPI_Allgather(from, count, MPI_BYTE, full.bytes_data() + begin, 1, piece.type(), comm_));
  });
}

void MpiCommunicator::DoBroadcast(Tensor buffer, int root, Stream&) {
  CHECK(buffer.device().is_cpu()) << buffer.device();
  ForEachPiece(buffer.bytes(), [&](int64_t begin, int count) {
    CHECK_MPI(MPI_Bcast(buffer.bytes_data() + begin, count, MPI_BYTE, root, comm_));
  });
}

}  // namespace

std::unique_ptr<Communicator> CreateMpiCommunicator(const MpiRuntime& runtime, int color,
                                                    const MpiCommunicatorOptions& options) {
  CHECK_GE(color, 0);
  MPI_Comm comm = MPI_COMM_NULL;
  CHECK_MPI(MPI_Comm_split(MPI_COMM_WORLD, color, runtime.rank(), &comm));
  int rank = 0;
  int size = 0;
  CHECK_MPI(MPI_Comm_rank(comm, &rank));
  CHECK_MPI(MPI_Comm_size(comm, &size));
  return std::make_unique<MpiCommunicator>(rank, size, comm, options);
}

}  // namespace panthera
