#ifndef PANTHERA_RUNTIME_MATH_CONTEXT_H_
#define PANTHERA_RUNTIME_MATH_CONTEXT_H_

#include <memory>

#include "runtime/device/arena.h"
#include "runtime/device/device.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/device/stream.h"

namespace panthera {

class GemmEngine;
class OpTimes;

// What an op needs, and nothing more: a device, where to enqueue, scratch memory and the matrix
// library. One per rank; passed by reference, never stored by layers. The ledger must outlive it.
class Context {
 public:
  // A context that computes on `device` with an arena of `arena_bytes`.
  Context(Device device, MemoryLedger& ledger, int64_t arena_bytes);
  // A context of kMeta that plans for computing on `target`: scratch of the target's libraries is
  // counted in the arena.
  static std::unique_ptr<Context> Plan(Device target, MemoryLedger& ledger);
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context();

  Device device() const { return device_; }
  // The device whose libraries and layouts count; device() but on kMeta.
  Device target() const { return target_; }
  MemoryLedger& ledger() { return ledger_; }
  Stream& compute() { return compute_; }
  // For what travels between ranks beside the computation, and what is done with it on arrival.
  Stream& exchange() { return exchange_; }
  Arena& arena() { return arena_; }
  GemmEngine& gemm() { return *gemm_; }
  // Where ops count their time (op_times.h); null, as at first, if nobody measures.
  OpTimes* op_times() const { return op_times_; }
  void set_op_times(OpTimes* times) { op_times_ = times; }

 private:
  Context(Device device, Device target, MemoryLedger& ledger, int64_t arena_bytes);

  Device device_;
  Device target_;
  MemoryLedger& ledger_;
  Stream compute_;
  Stream exchange_;
  Arena arena_;
  std::unique_ptr<GemmEngine> gemm_;
  OpTimes* op_times_ = nullptr;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_CONTEXT_H_
