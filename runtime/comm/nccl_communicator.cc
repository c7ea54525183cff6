#include "runtime/comm/nccl_communicator.h"

#include <nccl.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/cuda_check.h"
#include "runtime/device/memory_ledger.h"

namespace panthera {
namespace {

absl::Status ToStatus(ncclResult_t result, const char* what, ncclComm_t comm) {
  if (result == ncclSuccess) {
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat("NCCL, ", what, ": ", ncclGetErrorString(result), " (",
                                             ncclGetLastError(comm),
                                             "); with NCCL_DEBUG=INFO it tells more"));
}

cudaStream_t Handle(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }
size_t Count(int64_t bytes) { return static_cast<size_t>(bytes); }

class NcclCommunicator final : public Communicator {
 public:
  // Takes `comm`.
  NcclCommunicator(int rank, int size, ncclComm_t comm) : Communicator(rank, size), comm_(comm) {}

  ~NcclCommunicator() override {
    if (comm_ == nullptr) {
      return;
    }
    // Only peers that are all there can finish together.
    if (Health().ok() && ncclCommFinalize(comm_) == ncclSuccess) {
      (void)ncclCommDestroy(comm_);
    } else {
      (void)ncclCommAbort(comm_);
    }
  }

  absl::Status Health() override {
    if (failure_.ok()) {
      ncclResult_t state = ncclSuccess;
      Note(ncclCommGetAsyncError(comm_, &state), "asked for its state");
      if (state != ncclInProgress) {
        Note(state, "moving data between ranks");
      }
    }
    return failure_;
  }

  // Moves a few bytes in every way: what NCCL connects and allocates at a first use is done then.
  absl::Status Connect(Device device);

  // Ends what runs on the device without waiting for peers.
  void Abort(const absl::Status& reason) {
    failure_ = reason;
    if (comm_ != nullptr) {
      (void)ncclCommAbort(comm_);
      comm_ = nullptr;
    }
  }

 private:
  void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) override;
  void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) override;
  void DoBroadcast(Tensor buffer, int root, Stream& stream) override;

  // Keeps the first failure.
  void Note(ncclResult_t result, const char* what) {
    if (failure_.ok()) {
      failure_ = ToStatus(result, what, comm_);
    }
  }

  ncclComm_t comm_;
  absl::Status failure_;
};

void NcclCommunicator::DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) {
  CHECK(send.device().is_cuda()) << send.device();
  if (!failure_.ok()) {
    return;
  }
  const int64_t row_bytes = send.bytes() / size();
  Copy(stream, send.Slice(rank(), rank() + 1), recv.Slice(rank(), rank() + 1));
  Note(ncclGroupStart(), "AllToAll");
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      continue;
    }
    Note(ncclSend(send.bytes_data() + peer * row_bytes, Count(row_bytes), ncclUint8, peer, comm_,
                  Handle(stream)),
         "AllToAll");
    Note(ncclRecv(recv.bytes_data() + peer * row_bytes, Count(row_bytes), ncclUint8, peer, comm_,
                  Handle(stream)),
         "AllToAll");
  }
  Note(ncclGroupEnd(), "AllToAll");
}

void NcclCommunicator::DoAllGather(const Tensor& shard, Tensor full, Stream& stream) {
  CHECK(shard.device().is_cuda()) << shard.device();
  if (!failure_.ok()) {
    return;
  }
  // A shard that is its own row is what NCCL calls in place.
  Note(ncclAllGather(shard.bytes_data(), full.bytes_data(), Count(shard.bytes()), ncclUint8, comm_,
                     Handle(stream)),
       "AllGather");
}

void NcclCommunicator::DoBroadcast(Tensor buffer, int root, Stream& stream) {
  CHECK(buffer.device().is_cuda()) << buffer.device();
  if (!failure_.ok()) {
    return;
  }
  Note(ncclBroadcast(buffer.bytes_data(), buffer.bytes_data(), Count(buffer.bytes()), ncclUint8,
                     root, comm_, Handle(stream)),
       "Broadcast");
}

absl::Status NcclCommunicator::Connect(Device device) {
  MemoryLedger ledger;
  const Shape shape{size(), 1};
  const Buffer first(device, ledger, MemoryCategory::kCommunication, "first call", size());
  const Buffer second(device, ledger, MemoryCategory::kCommunication, "first call", size());
  const Tensor from = first.View(shape, DType::kU8);
  const Tensor to = second.View(shape, DType::kU8);
  Stream stream(device);
  Event done(device);
  if (size() > 1) {
    DoAllToAll(from, to, stream);
    DoAllGather(to.Slice(rank(), rank() + 1), to, stream);
    DoBroadcast(to, /*root=*/0, stream);
  }
  done.Record(stream);
  const absl::Status connected = Await(done, *this);
  if (!connected.ok()) {
    // Before the stream goes, which waits for its work.
    Abort(connected);
  }
  return connected;
}

// The id of a communicator to be made, from the first of its ranks.
absl::StatusOr<ncclUniqueId> ShareUniqueId(HostGroup& ranks) {
  ncclUniqueId id{};
  const ncclResult_t made = ranks.rank() == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
  RETURN_IF_ERROR(Agree(ranks, ToStatus(made, "looking for a network between ranks", nullptr)));
  const std::string bytes = ranks.Broadcast(std::string(id.internal, sizeof(id.internal)), 0);
  CHECK_EQ(bytes.size(), sizeof(id.internal));
  std::memcpy(id.internal, bytes.data(), bytes.size());
  return id;
}

}  // namespace

absl::StatusOr<int> NcclVersion() {
  int version = 0;
  RETURN_IF_ERROR(ToStatus(ncclGetVersion(&version), "asked for its version", nullptr));
  return version;
}

absl::StatusOr<std::unique_ptr<Communicator>> CreateNcclCommunicator(HostGroup& ranks,
                                                                     Device device) {
  CHECK(device.is_cuda()) << device;
  ASSIGN_OR_RETURN(const ncclUniqueId id, ShareUniqueId(ranks));
  // NCCL takes the thread's current device.
  CHECK_CUDA(cudaSetDevice(device.ordinal));
  ncclComm_t comm = nullptr;
  const ncclResult_t joined = ncclCommInitRank(&comm, ranks.size(), id, ranks.rank());
  std::unique_ptr<NcclCommunicator> result;
  if (joined == ncclSuccess) {
    result = std::make_unique<NcclCommunicator>(ranks.rank(), ranks.size(), comm);
  }
  absl::Status status = Agree(ranks, ToStatus(joined, "joining ranks on their GPUs", nullptr));
  if (status.ok()) {
    status = Agree(ranks, result->Connect(device));
  }
  if (!status.ok()) {
    if (result != nullptr) {
      result->Abort(status);
    }
    return status;
  }
  return result;
}

}  // namespace panthera
