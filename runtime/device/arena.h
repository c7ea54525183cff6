#ifndef PANTHERA_RUNTIME_DEVICE_ARENA_H_
#define PANTHERA_RUNTIME_DEVICE_ARENA_H_

#include <cstdint>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/base/shape.h"
#include "runtime/device/buffer.h"
#include "runtime/device/tensor.h"

namespace panthera {

// Memory for what lives inside one step: activations, their gradients, scratch. Allocation moves a
// pointer; a Scope gives back everything allocated since it began. Contents are undefined.
//
// On kMeta the arena has no memory and no bound: running a step there measures the peak, and the
// real arena is made that large. Exceeding a real arena is a bug and aborts with the names alive.
class Arena {
 public:
  static constexpr int64_t kAlignmentBytes = 256;

  struct Allocation {
    const char* name;
    int64_t bytes;
  };

  // An arena of kMeta, or one of `capacity_bytes` on a device.
  Arena(Device device, MemoryLedger& ledger, int64_t capacity_bytes);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `name` must be a literal: it is kept for messages and for the account of the peak.
  Tensor Allocate(const Shape& shape, DType dtype, const char* name);

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), live_(arena.live_.size()), top_(arena.top_) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { arena_.Restore(live_, top_); }

   private:
    Arena& arena_;
    size_t live_;
    int64_t top_;
  };

  // The largest number of bytes that were ever in use at once, and on kMeta what was alive then.
  int64_t peak_bytes() const { return peak_; }
  const std::vector<Allocation>& peak_allocations() const { return peak_live_; }
  int64_t used_bytes() const { return top_; }
  int64_t capacity_bytes() const { return buffer_.bytes(); }

 private:
  void Restore(size_t live, int64_t top);

  Buffer buffer_;
  Device device_;
  int64_t top_ = 0;
  int64_t peak_ = 0;
  std::vector<Allocation> live_;
  std::vector<Allocation> peak_live_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_ARENA_H_
