#include "runtime/comm/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <utility>

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

// Host memory through which what travels between GPUs passes, one part for each direction.
struct Staging {
  Staging(Device device, MemoryLedger& ledger, int64_t bytes)
      : out(Buffer::Pinned(device, ledger, MemoryCategory::kCommunication, "sent by MPI", bytes)),
        in(Buffer::Pinned(device, ledger, MemoryCategory::kCommunication, "received by MPI",
                          bytes)) {}

  Buffer out;
  Buffer in;
};

// Enqueues to[0, bytes) = from[0, bytes), one of which may lie on the stream's GPU.
void CopyBytes(const std::byte* from, std::byte* to, int64_t bytes, Stream& stream) {
  const Tensor source(const_cast<std::byte*>(from), {bytes}, DType::kU8, stream.device());
  Copy(stream, source, Tensor(to, {bytes}, DType::kU8, stream.device()));
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(int rank, int size, MPI_Comm comm, const MpiCommunicatorOptions& options)
      : Communicator(rank, size), comm_(comm), options_(options) {
    CHECK_GE(options_.max_piece_bytes, 1);
    CHECK_LE(options_.max_piece_bytes, std::numeric_limits<int>::max());
    CHECK_GE(options_.staging_bytes, size);
  }
  ~MpiCommunicator() override { CHECK_MPI(MPI_Comm_free(&comm_)); }

  Buffer Allocate(Device device, MemoryLedger& ledger, MemoryCategory category, std::string name,
                  int64_t bytes) override {
    if (device.is_cuda()) {
      (void)StagingFor(device);
    }
    return Communicator::Allocate(device, ledger, category, std::move(name), bytes);
  }

 private:
  void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) override;
  void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) override;
  void DoBroadcast(Tensor buffer, int root, Stream& stream) override;

  void StagedAllToAll(const Tensor& send, Tensor recv, Stream& stream);
  void StagedAllGather(const Tensor& shard, Tensor full, Stream& stream);
  void StagedBroadcast(Tensor buffer, int root, Stream& stream);

  Staging& StagingFor(Device device) {
    if (!staging_.has_value()) {
      staging_.emplace(device, staging_ledger_, options_.staging_bytes);
    }
    return *staging_;
  }

  // Calls piece(begin, count) for the pieces of `bytes`.
  template <typename Piece>
  void ForEachPiece(int64_t bytes, int64_t max_piece_bytes, const Piece& piece) const {
    for (int64_t begin = 0; begin < bytes; begin += max_piece_bytes) {
      piece(begin, static_cast<int>(std::min(max_piece_bytes, bytes - begin)));
    }
  }
  // Of a piece of which `rows` fit the staging memory.
  int64_t MaxStagedBytes(int64_t rows) const {
    return std::min(options_.max_piece_bytes, options_.staging_bytes / rows);
  }

  MPI_Comm comm_;
  const MpiCommunicatorOptions options_;
  MemoryLedger staging_ledger_;
  std::optional<Staging> staging_;
};

void MpiCommunicator::DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) {
  if (send.device().is_cuda()) {
    StagedAllToAll(send, recv, stream);
    return;
  }
  const int64_t row_bytes = send.bytes() / size();
  ForEachPiece(row_bytes, options_.max_piece_bytes, [&](int64_t begin, int count) {
    const StridedBytes piece(count, row_bytes);
    CHECK_MPI(MPI_Alltoall(send.bytes_data() + begin, 1, piece.type(), recv.bytes_data() + begin, 1,
                           piece.type(), comm_));
  });
}

void MpiCommunicator::DoAllGather(const Tensor& shard, Tensor full, Stream& stream) {
  if (shard.device().is_cuda()) {
    StagedAllGather(shard, full, stream);
    return;
  }
  const int64_t row_bytes = shard.bytes();
  const bool in_place = shard.bytes_data() == full.bytes_data() + rank() * row_bytes;
  ForEachPiece(row_bytes, options_.max_piece_bytes, [&](int64_t begin, int count) {
    const StridedBytes piece(count, row_bytes);
    const void* from = in_place ? MPI_IN_PLACE : shard.bytes_data() + begin;
    CHECK_MPI(
        MPI_Allgather(from, count, MPI_BYTE, full.bytes_data() + begin, 1, piece.type(), comm_));
  });
}

void MpiCommunicator::DoBroadcast(Tensor buffer, int root, Stream& stream) {
  if (buffer.device().is_cuda()) {
    StagedBroadcast(buffer, root, stream);
    return;
  }
  ForEachPiece(buffer.bytes(), options_.max_piece_bytes, [&](int64_t begin, int count) {
    CHECK_MPI(MPI_Bcast(buffer.bytes_data() + begin, count, MPI_BYTE, root, comm_));
  });
}

// In each of the three the stream is waited for before MPI touches the staging memory: then the
// piece to be sent has come to the host, and the piece received before it has left. The last wait
// leaves the memory free for a call on another stream.

void MpiCommunicator::StagedAllToAll(const Tensor& send, Tensor recv, Stream& stream) {
  Staging& staging = StagingFor(send.device());
  const int64_t row_bytes = send.bytes() / size();
  ForEachPiece(row_bytes, MaxStagedBytes(size()), [&](int64_t begin, int count) {
    for (int64_t r = 0; r < size(); ++r) {
      CopyBytes(send.bytes_data() + r * row_bytes + begin, staging.out.data() + r * count, count,
                stream);
    }
    stream.Synchronize();
    CHECK_MPI(MPI_Alltoall(staging.out.data(), count, MPI_BYTE, staging.in.data(), count, MPI_BYTE,
                           comm_));
    for (int64_t r = 0; r < size(); ++r) {
      CopyBytes(staging.in.data() + r * count, recv.bytes_data() + r * row_bytes + begin, count,
                stream);
    }
  });
  stream.Synchronize();
}

void MpiCommunicator::StagedAllGather(const Tensor& shard, Tensor full, Stream& stream) {
  Staging& staging = StagingFor(shard.device());
  const int64_t row_bytes = shard.bytes();
  ForEachPiece(row_bytes, MaxStagedBytes(size()), [&](int64_t begin, int count) {
    CopyBytes(shard.bytes_data() + begin, staging.out.data(), count, stream);
    stream.Synchronize();
    CHECK_MPI(MPI_Allgather(staging.out.data(), count, MPI_BYTE, staging.in.data(), count, MPI_BYTE,
                            comm_));
    for (int64_t r = 0; r < size(); ++r) {
      CopyBytes(staging.in.data() + r * count, full.bytes_data() + r * row_bytes + begin, count,
                stream);
    }
  });
  stream.Synchronize();
}

void MpiCommunicator::StagedBroadcast(Tensor buffer, int root, Stream& stream) {
  Staging& staging = StagingFor(buffer.device());
  ForEachPiece(buffer.bytes(), MaxStagedBytes(/*rows=*/1), [&](int64_t begin, int count) {
    if (rank() == root) {
      CopyBytes(buffer.bytes_data() + begin, staging.out.data(), count, stream);
    }
    stream.Synchronize();
    CHECK_MPI(MPI_Bcast(staging.out.data(), count, MPI_BYTE, root, comm_));
    if (rank() != root) {
      CopyBytes(staging.out.data(), buffer.bytes_data() + begin, count, stream);
    }
  });
  stream.Synchronize();
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
