#ifndef PANTHERA_RUNTIME_COMM_COMMUNICATOR_H_
#define PANTHERA_RUNTIME_COMM_COMMUNICATOR_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

#include "runtime/device/buffer.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera {

// Moves tensors between the ranks of one axis of the mesh. Every rank must issue the same calls in
// the same order with the same shapes and types. Calls enqueue on `stream`: they come after the
// stream's earlier work, and its later work finds the data. On the CPU, where streams are
// immediate, they return when the data has arrived and may block on the peers. With tensors of a
// GPU only NCCL leaves the host free; threads and MPI block it until the call is done.
//
// Communicators only move bytes. Sums are written once, on top (comm/reduce.h), in rank order, so
// that every implementation gives the same bits. Counts come from the tensors, never from the
// caller. On kMeta calls check their arguments, count the traffic and return.
//
// Not thread-safe: one rank, one thread.
class Communicator {
 public:
  Communicator(int rank, int size);
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Memory for tensors that travel; the tensors given to the calls below should lie in it (a device
  // communicator may have to register it).
  virtual Buffer Allocate(Device device, MemoryLedger& ledger, MemoryCategory category,
                          std::string name, int64_t bytes);

  // recv[s] = row `rank()` of rank s's send.
  //   send, recv  [size, ...], the same shape, any type, not overlapping
  void AllToAll(const Tensor& send, Tensor recv, Stream& stream);
  // full[s] = rank s's shard.
  //   shard  any shape of n elements;  full  [size, ...] of size * n elements
  // `shard` may be full's own row `rank()`; otherwise the two must not overlap.
  void AllGather(const Tensor& shard, Tensor full, Stream& stream);
  // buffer = rank `root`'s buffer.
  void Broadcast(Tensor buffer, int root, Stream& stream);

  // Bytes that this rank has sent to other ranks since it was created, by what the algorithm of the
  // call must move at least: (size-1)/size of `send` for AllToAll, size-1 shards for AllGather (a
  // ring forwards the others' shards), for Broadcast the buffer on its root and nothing elsewhere.
  int64_t bytes_sent() const { return bytes_sent_; }

  // Why the data of earlier calls may never arrive, such as a peer that was lost; OK as far as is
  // known. Never blocks. Whoever waits for a stream on which calls were enqueued asks this while it
  // waits: that stream may stand still for ever. Once it is an error it stays one, and further
  // calls move nothing; all that is left is to destroy the communicator and end the job.
  virtual absl::Status Health() { return absl::OkStatus(); }

 private:
  // Called with checked arguments, never with empty tensors, on kMeta or when the size is 1.
  virtual void DoAllToAll(const Tensor& send, Tensor recv, Stream& stream) = 0;
  virtual void DoAllGather(const Tensor& shard, Tensor full, Stream& stream) = 0;
  virtual void DoBroadcast(Tensor buffer, int root, Stream& stream) = 0;

  int rank_;
  int size_;
  int64_t bytes_sent_ = 0;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_COMM_COMMUNICATOR_H_
