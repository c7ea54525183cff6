#include "runtime/comm/communicator.h"

#include <functional>
#include <utility>

#include "runtime/base/check.h"

namespace panthera {
namespace {

bool Overlap(const Tensor& a, const Tensor& b) {
  // std::less orders pointers into different objects too.
  const std::less<const std::byte*> before;
  return before(a.bytes_data(), b.bytes_data() + b.bytes()) &&
         before(b.bytes_data(), a.bytes_data() + a.bytes());
}

void CheckPlace(const Tensor& tensor, const Stream& stream) {
  CHECK_EQ(tensor.device(), stream.device());
}

// A call that moves no bytes between or within ranks.
bool NothingToMove(const Tensor& tensor) {
  return tensor.device().is_meta() || tensor.bytes() == 0;
}

void CopyWithinRank(const Tensor& from, Tensor to, Stream& stream) {
  if (from.bytes_data() != to.bytes_data()) {
    Copy(stream, from, to);
  }
}

}  // namespace

Communicator::Communicator(int rank, int size) : rank_(rank), size_(size) {
  CHECK_GE(rank, 0);
  CHECK_LT(rank, size);
}

Buffer Communicator::Allocate(Device device, MemoryLedger& ledger, MemoryCategory category,
                              std::string name, int64_t bytes) {
  return {device, ledger, category, std::move(name), bytes};
}

void Communicator::AllToAll(const Tensor& send, Tensor recv, Stream& stream) {
  CHECK_GE(send.shape().rank(), 1);
  CHECK_EQ(send.size(0), size_) << "one row for each rank";
  CHECK_EQ(send.shape(), recv.shape());
  CHECK_EQ(send.dtype(), recv.dtype());
  CheckPlace(send, stream);
  CheckPlace(recv, stream);
  bytes_sent_ += send.bytes() / size_ * (size_ - 1);
  if (NothingToMove(send)) {
    return;
  }
  CHECK(!Overlap(send, recv)) << send.shape() << " of " << send.dtype();
  if (size_ == 1) {
    CopyWithinRank(send, recv, stream);
    return;
  }
  DoAllToAll(send, recv, stream);
}

void Communicator::AllGather(const Tensor& shard, Tensor full, Stream& stream) {
  CHECK_GE(full.shape().rank(), 1);
  CHECK_EQ(full.size(0), size_) << "one row for each rank";
  CHECK_EQ(full.elements(), shard.elements() * size_) << shard.shape() << " into " << full.shape();
  CHECK_EQ(shard.dtype(), full.dtype());
  CheckPlace(shard, stream);
  CheckPlace(full, stream);
  bytes_sent_ += shard.bytes() * (size_ - 1);
  if (NothingToMove(shard)) {
    return;
  }
  CHECK(shard.bytes_data() == full.bytes_data() + rank_ * shard.bytes() || !Overlap(shard, full))
      << "a shard may share memory only with row " << rank_ << " of " << full.shape();
  if (size_ == 1) {
    CopyWithinRank(shard, full, stream);
    return;
  }
  DoAllGather(shard, full, stream);
}

void Communicator::Broadcast(Tensor buffer, int root, Stream& stream) {
  CHECK_GE(root, 0);
  CHECK_LT(root, size_);
  CheckPlace(buffer, stream);
  if (rank_ == root && size_ > 1) {
    bytes_sent_ += buffer.bytes();
  }
  if (NothingToMove(buffer) || size_ == 1) {
    return;
  }
  DoBroadcast(buffer, root, stream);
}

}  // namespace panthera
