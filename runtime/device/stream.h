#ifndef PANTHERA_RUNTIME_DEVICE_STREAM_H_
#define PANTHERA_RUNTIME_DEVICE_STREAM_H_

#include "runtime/device/device.h"

namespace panthera {

// An order of execution on a device. Work is enqueued on a stream and runs in the order of
// submission. On kCpu a stream is immediate: enqueued work has run when the call returns.
class Stream {
 public:
  explicit Stream(Device device) : device_(device) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }

 private:
  Device device_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_DEVICE_STREAM_H_
