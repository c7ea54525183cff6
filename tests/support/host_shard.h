#ifndef PANTHERA_TESTS_SUPPORT_HOST_SHARD_H_
#define PANTHERA_TESTS_SUPPORT_HOST_SHARD_H_

#include <cstddef>
#include <deque>
#include <vector>

#include "absl/functional/function_ref.h"

#include "runtime/device/stream.h"
#include "runtime/params/weight_shard.h"

namespace panthera::testing {

// A WeightShard of any device, in host memory.
class HostShard {
 public:
  explicit HostShard(const WeightShard& shard);

  const WeightShard& shard() const { return shard_; }
  // Copies from the device to the host and back, behind what `stream` has. Both wait.
  void Fetch(Stream& stream);
  void Store(Stream& stream);

 private:
  Tensor Add(const Tensor& like);
  void ForEachPart(absl::FunctionRef<void(const Tensor& device, const Tensor& host)> visit);

  WeightShard device_;
  WeightShard shard_;
  std::deque<std::vector<std::byte>> memory_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_SUPPORT_HOST_SHARD_H_
