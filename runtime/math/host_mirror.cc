#include "runtime/math/host_mirror.h"

namespace panthera {

HostMirror::HostMirror(Context& ctx, const std::string& name, const Tensor& tensor)
    : tensor_(tensor), host_(tensor) {
  if (ctx.target().is_cuda()) {
    memory_ =
        Buffer::Pinned(ctx.device(), ctx.ledger(), MemoryCategory::kPinned, name, tensor.bytes());
    host_ = memory_.View(tensor.shape(), tensor.dtype());
  }
}

void HostMirror::Fetch(Stream& stream) {
  if (stream.device().is_cuda()) {
    Copy(stream, tensor_, host_);
  }
}

}  // namespace panthera
