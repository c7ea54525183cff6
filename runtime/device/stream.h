#ifndef PANTHERA_RUNTIME_DEVICE_STREAM_H_
#define PANTHERA_RUNTIME_DEVICE_STREAM_H_

#include <utility>

#include "runtime/device/cuda_device.h"
#include "runtime/device/device.h"
#include "runtime/device/tensor.h"

namespace panthera {

class Event;

// An order of execution on a device. Work is enqueued on a stream and runs in the order of
// submission. On kCpu and kMeta a stream is immediate: enqueued work has run when the call returns.
class Stream {
 public:
  explicit Stream(Device device);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  // Blocks until the stream's work is done.
  ~Stream();

  Device device() const { return device_; }

  // Work enqueued from now on waits until the stream on which `event` was recorded has come there.
  void WaitFor(const Event& event);
  // Blocks the host until all enqueued work is done. Never inside a step.
  void Synchronize();

  // Of CUDA; null on other devices.
  cuda::StreamHandle handle() const { return handle_; }

 private:
  Device device_;
  cuda::StreamHandle handle_ = nullptr;
};

// A point in a stream's work, to wait for on another stream or on the host. Nobody waits for an
// event that was never recorded. Move-only.
class Event {
 public:
  explicit Event(Device device, cuda::Timing timing = cuda::Timing::kNone);
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  // The event is now the point after all work that `stream` has so far.
  void Record(Stream& stream);
  // Blocks the host until the point is reached.
  void Synchronize();
  bool is_done() const;
  // Milliseconds from `begin` to this event, both done and made with Timing::kMeasured. 0 on
  // devices whose streams are immediate.
  float MillisecondsSince(const Event& begin) const;

  cuda::EventHandle handle() const { return handle_; }

 private:
  cuda::EventHandle handle_ = nullptr;
};

// Enqueues to = from, bit by bit: equal types and numbers of elements, any pair of devices, not
// overlapping. Between device and pageable host memory CUDA may block the host; see
// Buffer::Pinned. On a stream of kMeta nothing is copied.
void Copy(Stream& stream, const Tensor& from, Tensor to);

// Enqueues x = 0, any type.
void SetZero(Stream& stream, Tensor x);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_STREAM_H_
