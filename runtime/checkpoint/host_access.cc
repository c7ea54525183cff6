#include "runtime/checkpoint/host_access.h"

#include <cstring>

namespace panthera {
namespace {

Tensor Flat(const Tensor& tensor) { return tensor.Reshape({tensor.elements()}); }

}  // namespace

std::span<const std::byte> HostAccess::Read(const Tensor& tensor, int64_t begin, int64_t end) {
  const Tensor part = Flat(tensor).Slice(begin, end);
  const auto bytes = static_cast<size_t>(part.bytes());
  if (part.device().is_cpu()) {
    return {part.bytes_data(), bytes};
  }
  part_.resize(bytes);
  Stream& stream = StreamOf(part.device());
  Copy(stream, part, Tensor(part_.data(), part.shape(), part.dtype(), Device{}));
  stream.Synchronize();
  return part_;
}

void HostAccess::Write(std::span<const std::byte> bytes, const Tensor& tensor, int64_t begin) {
  const int64_t elements = static_cast<int64_t>(bytes.size()) / SizeOf(tensor.dtype());
  const Tensor part = Flat(tensor).Slice(begin, begin + elements);
  if (part.device().is_cpu()) {
    std::memcpy(part.bytes_data(), bytes.data(), bytes.size());
    return;
  }
  // Copying from pageable memory changes nothing there.
  auto* const from = const_cast<std::byte*>(bytes.data());
  Stream& stream = StreamOf(part.device());
  Copy(stream, Tensor(from, part.shape(), part.dtype(), Device{}), part);
  stream.Synchronize();
}

Stream& HostAccess::StreamOf(Device device) {
  if (stream_ == nullptr || stream_->device() != device) {
    stream_ = std::make_unique<Stream>(device);
  }
  return *stream_;
}

}  // namespace panthera
