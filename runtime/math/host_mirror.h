#ifndef PANTHERA_RUNTIME_MATH_HOST_MIRROR_H_
#define PANTHERA_RUNTIME_MATH_HOST_MIRROR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/buffer.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// A small tensor of the device as the host sees it, without making the host wait inside a step: on
// a GPU a copy in pinned memory, elsewhere the tensor itself.
class HostMirror {
 public:
  HostMirror() = default;
  // Allocates what the copy needs, entered as pinned host memory under `name`.
  HostMirror(Context& ctx, const std::string& name, const Tensor& tensor);

  // Enqueues the copy.
  void Fetch(Stream& stream);
  // The elements as of the last Fetch, once the host knows that the stream has come there; a tensor
  // of kMeta on kMeta.
  const Tensor& host() const { return host_; }

 private:
  Tensor tensor_;
  Buffer memory_;
  Tensor host_;
};

// The elements of a tensor after all work that ctx.compute() has so far. Blocks until that is done:
// not for use inside a step. On kMeta as many zeros.
template <typename T>
std::vector<T> ReadToHost(Context& ctx, const Tensor& tensor) {
  std::vector<T> elements(static_cast<size_t>(tensor.elements()));
  if (!ctx.device().is_meta()) {
    Copy(ctx.compute(), tensor, Tensor(elements.data(), tensor.shape(), DTypeOf<T>::value, {}));
    ctx.compute().Synchronize();
  }
  return elements;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_HOST_MIRROR_H_
