#ifndef PANTHERA_RUNTIME_CHECKPOINT_HOST_ACCESS_H_
#define PANTHERA_RUNTIME_CHECKPOINT_HOST_ACCESS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera {

// The bytes of tensors for code that reads and writes files, wherever they lie: host memory is used
// in place, a GPU's is copied part by part. Every call blocks until its copy is done; work that
// other streams still have with the tensors must be done before.
class HostAccess {
 public:
  // Elements [begin, end), counted in all of the tensor. Valid until the next call.
  std::span<const std::byte> Read(const Tensor& tensor, int64_t begin, int64_t end);
  // Elements [begin, ...) = bytes.
  void Write(std::span<const std::byte> bytes, const Tensor& tensor, int64_t begin);

 private:
  Stream& StreamOf(Device device);

  std::unique_ptr<Stream> stream_;
  std::vector<std::byte> part_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_HOST_ACCESS_H_
