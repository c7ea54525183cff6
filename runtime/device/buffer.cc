#include "runtime/device/buffer.h"

#include <utility>

#include "runtime/base/check.h"
#include "runtime/device/cuda_device.h"
#include <sys/mman.h>

namespace panthera {
namespace {

// Buffers of at least this size ask for huge pages: weights and activations are walked from end to
// end, and 4 KiB pages would cost a table walk every 1,024 floats.
constexpr int64_t kHugePageBytes = int64_t{2} << 20;

std::byte* MapZeroedMemory(int64_t bytes, const std::string& name) {
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED) << "out of host memory: " << FormatBytes(bytes) << " for " << name
                              << "; run `panthera plan` to see what the configuration needs";
  if (bytes >= kHugePageBytes) {
    // Advice only: without huge pages the memory works the same.
    (void)madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  }
  return static_cast<std::byte*>(memory);
}

}  // namespace

Buffer::Buffer(Device device, MemoryLedger& ledger, MemoryCategory category, std::string name,
               int64_t bytes)
    : bytes_(bytes),
      device_(device),
      ledger_(&ledger),
      category_(category),
      name_(std::move(name)) {
  CHECK_GE(bytes, 0);
  ledger.Add(category_, name_, bytes_);
  if (device.is_meta() || bytes == 0) {
    return;
  }
  if (device.is_cuda()) {
    source_ = Source::kCudaDevice;
    data_ = cuda::AllocateDevice(device, bytes, name_);
  } else {
    data_ = MapZeroedMemory(bytes, name_);
  }
}

Buffer Buffer::Pinned(Device device, MemoryLedger& ledger, MemoryCategory category,
                      std::string name, int64_t bytes) {
  if (!device.is_cuda() || bytes == 0) {
    return Buffer(device, ledger, category, std::move(name), bytes);
  }
  CHECK_GE(bytes, 0);
  Buffer buffer;
  buffer.source_ = Source::kCudaPinned;
  buffer.data_ = cuda::AllocatePinned(device, bytes, name);
  buffer.bytes_ = bytes;
  buffer.ledger_ = &ledger;
  buffer.category_ = category;
  buffer.name_ = std::move(name);
  ledger.Add(category, buffer.name_, bytes);
  return buffer;
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    Release();
    source_ = other.source_;
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    device_ = other.device_;
    ledger_ = std::exchange(other.ledger_, nullptr);
    category_ = other.category_;
    name_ = std::move(other.name_);
  }
  return *this;
}

Buffer::~Buffer() { Release(); }

void Buffer::Release() {
  if (data_ != nullptr) {
    switch (source_) {
      case Source::kMapped:
        munmap(data_, static_cast<size_t>(bytes_));
        break;
      case Source::kCudaDevice:
        cuda::FreeDevice(device_, data_);
        break;
      case Source::kCudaPinned:
        cuda::FreePinned(data_);
        break;
    }
    data_ = nullptr;
  }
  if (ledger_ != nullptr) {
    ledger_->Remove(category_, name_, bytes_);
    ledger_ = nullptr;
  }
}

Tensor Buffer::View(const Shape& shape, DType dtype, int64_t offset_bytes) const {
  CHECK_GE(offset_bytes, 0);
  CHECK_EQ(offset_bytes % SizeOf(dtype), 0);
  CHECK_LE(offset_bytes + shape.elements() * SizeOf(dtype), bytes_)
      << shape << " of " << dtype << " at byte " << offset_bytes << " of " << name_;
  return {data_ == nullptr ? nullptr : data_ + offset_bytes, shape, dtype, device_};
}

}  // namespace panthera
