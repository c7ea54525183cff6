#include "runtime/math/context.h"

#include "runtime/math/gemm.h"

namespace panthera {

Context::Context(Device device, MemoryLedger& ledger, int64_t arena_bytes)
    : Context(device, device, ledger, arena_bytes) {}

Context::Context(Device device, Device target, MemoryLedger& ledger, int64_t arena_bytes)
    : device_(device),
      target_(target),
      ledger_(ledger),
      compute_(device),
      exchange_(device),
      arena_(device, ledger, arena_bytes),
      gemm_(std::make_unique<GemmEngine>(target)) {}

std::unique_ptr<Context> Context::Plan(Device target, MemoryLedger& ledger) {
  return std::unique_ptr<Context>(new Context({DeviceKind::kMeta, 0}, target, ledger, 0));
}

Context::~Context() = default;

}  // namespace panthera
