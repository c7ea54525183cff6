#ifndef PANTHERA_RUNTIME_DEVICE_BUFFER_H_
#define PANTHERA_RUNTIME_DEVICE_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime/base/dtype.h"
#include "runtime/base/shape.h"
#include "runtime/device/device.h"
#include "runtime/device/memory_ledger.h"
#include "runtime/device/tensor.h"

namespace panthera {

// Owns `bytes` of zeroed memory of one device, aligned to 4,096 bytes, for as long as it lives.
// Move-only. On kMeta it owns nothing but is entered in the ledger all the same. The ledger must
// outlive the buffer. Aborts with name and size when the memory cannot be had.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device device, MemoryLedger& ledger, MemoryCategory category, std::string name,
         int64_t bytes);
  // Host memory, viewed as kCpu, that `device` copies from and to without the host waiting. Where
  // `device` is not kCuda it is memory of `device`, as from the constructor above.
  static Buffer Pinned(Device device, MemoryLedger& ledger, MemoryCategory category,
                       std::string name, int64_t bytes);
  Buffer(Buffer&& other) noexcept { *this = static_cast<Buffer&&>(other); }
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  // A view of `shape` elements beginning `offset_bytes` into the buffer.
  Tensor View(const Shape& shape, DType dtype, int64_t offset_bytes = 0) const;

 private:
  enum class Source : uint8_t { kMapped, kCudaDevice, kCudaPinned };

  void Release();

  Source source_ = Source::kMapped;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  Device device_;
  MemoryLedger* ledger_ = nullptr;
  MemoryCategory category_ = MemoryCategory::kData;
  std::string name_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_BUFFER_H_
