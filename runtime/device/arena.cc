#include "runtime/device/arena.h"

#include <algorithm>
#include <sstream>

#include "runtime/base/check.h"

namespace panthera {
namespace {

// More live allocations than any step has, so that recording one never allocates.
constexpr size_t kReservedAllocations = 4096;

std::string Describe(const std::vector<Arena::Allocation>& live) {
  std::ostringstream text;
  for (const Arena::Allocation& allocation : live) {
    text << "\n  " << allocation.name << " " << FormatBytes(allocation.bytes);
  }
  return text.str();
}

}  // namespace

Arena::Arena(Device device, MemoryLedger& ledger, int64_t capacity_bytes) : device_(device) {
  if (!device.is_meta()) {
    buffer_ = Buffer(device, ledger, MemoryCategory::kActivations, "arena", capacity_bytes);
  }
  live_.reserve(kReservedAllocations);
}

Tensor Arena::Allocate(const Shape& shape, DType dtype, const char* name) {
  const int64_t bytes = RoundUp(shape.elements() * SizeOf(dtype), kAlignmentBytes);
  const int64_t begin = top_;
  top_ += bytes;
  live_.push_back({name, bytes});
  if (device_.is_meta()) {
    if (top_ > peak_) {
      peak_ = top_;
      peak_live_ = live_;
    }
    return {nullptr, shape, dtype, device_};
  }
  CHECK_LE(top_, buffer_.bytes()) << "the arena has no room for " << name
                                  << "; alive:" << Describe(live_);
  peak_ = std::max(peak_, top_);
  return buffer_.View(shape, dtype, begin);
}

void Arena::Restore(size_t live, int64_t top) {
  CHECK_LE(top, top_) << "arena scopes must end in the reverse order of their beginning";
  live_.resize(live);
  top_ = top;
}

}  // namespace panthera
