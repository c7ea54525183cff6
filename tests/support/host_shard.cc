#include "tests/support/host_shard.h"

namespace panthera::testing {

HostShard::HostShard(const WeightShard& shard) : device_(shard) {
  shard_.storage = shard.storage;
  shard_.values = Add(shard.values);
  if (shard.remainder.has_value()) {
    shard_.remainder = Add(*shard.remainder);
  }
  if (shard.master.has_value()) {
    shard_.master = Add(*shard.master);
  }
}

void HostShard::Fetch(Stream& stream) {
  ForEachPart([&](const Tensor& device, const Tensor& host) { Copy(stream, device, host); });
  stream.Synchronize();
}

void HostShard::Store(Stream& stream) {
  ForEachPart([&](const Tensor& device, const Tensor& host) { Copy(stream, host, device); });
  stream.Synchronize();
}

Tensor HostShard::Add(const Tensor& like) {
  memory_.emplace_back(static_cast<size_t>(like.bytes()));
  return {memory_.back().data(), like.shape(), like.dtype(), Device{}};
}

void HostShard::ForEachPart(
    absl::FunctionRef<void(const Tensor& device, const Tensor& host)> visit) {
  visit(device_.values, shard_.values);
  if (shard_.remainder.has_value()) {
    visit(*device_.remainder, *shard_.remainder);
  }
  if (shard_.master.has_value()) {
    visit(*device_.master, *shard_.master);
  }
}

}  // namespace panthera::testing
