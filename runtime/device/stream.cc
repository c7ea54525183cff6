#include "runtime/device/stream.h"

#include <cstring>

#include "runtime/base/check.h"

namespace panthera {

Stream::Stream(Device device) : device_(device) {
  if (device.is_cuda()) {
    handle_ = cuda::CreateStream(device);
  }
}

Stream::~Stream() {
  if (handle_ != nullptr) {
    cuda::Synchronize(handle_);
    cuda::DestroyStream(handle_);
  }
}

void Stream::WaitFor(const Event& event) {
  if (handle_ != nullptr) {
    cuda::WaitForEvent(handle_, event.handle());
  }
}

void Stream::Synchronize() {
  if (handle_ != nullptr) {
    cuda::Synchronize(handle_);
  }
}

Event::Event(Device device, cuda::Timing timing) {
  if (device.is_cuda()) {
    handle_ = cuda::CreateEvent(device, timing);
  }
}

Event::~Event() {
  if (handle_ != nullptr) {
    cuda::DestroyEvent(handle_);
  }
}

void Event::Record(Stream& stream) {
  if (handle_ != nullptr) {
    cuda::RecordEvent(handle_, stream.handle());
  }
}

void Event::Synchronize() {
  if (handle_ != nullptr) {
    cuda::SynchronizeEvent(handle_);
  }
}

bool Event::is_done() const { return handle_ == nullptr || cuda::IsEventDone(handle_); }

float Event::MillisecondsSince(const Event& begin) const {
  return handle_ == nullptr ? 0.0F : cuda::MillisecondsBetween(begin.handle_, handle_);
}

void Copy(Stream& stream, const Tensor& from, Tensor to) {
  CHECK_EQ(from.elements(), to.elements());
  CHECK_EQ(from.dtype(), to.dtype());
  if (stream.device().is_meta() || from.bytes() == 0) {
    return;
  }
  if (stream.handle() != nullptr) {
    cuda::CopyAsync(stream.handle(), to.bytes_data(), from.bytes_data(), from.bytes());
  } else {
    std::memcpy(to.bytes_data(), from.bytes_data(), static_cast<size_t>(from.bytes()));
  }
}

void SetZero(Stream& stream, Tensor x) {
  if (stream.device().is_meta() || x.bytes() == 0) {
    return;
  }
  if (stream.handle() != nullptr) {
    cuda::SetZeroAsync(stream.handle(), x.bytes_data(), x.bytes());
  } else {
    std::memset(x.bytes_data(), 0, static_cast<size_t>(x.bytes()));
  }
}

}  // namespace panthera
