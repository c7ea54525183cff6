#ifndef PANTHERA_RUNTIME_CHECKPOINT_SHARD_WRITER_H_
#define PANTHERA_RUNTIME_CHECKPOINT_SHARD_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/checkpoint/host_access.h"
#include "runtime/params/weight_shard.h"

namespace panthera {

// Stores fp32 values in a shard, whatever device it lies on. Holds up to kMostElements of it in
// host memory.
class ShardWriter {
 public:
  static constexpr int64_t kMostElements = int64_t{1} << 20;

  // The shard's tensors must outlive the writer.
  explicit ShardWriter(const WeightShard& shard);

  // Elements [begin, ...) of the shard = values, up to kMostElements, rounded to nearest where the
  // storage keeps less. Blocks until they are there; other streams must be done with them.
  void Store(std::span<const float> values, int64_t begin);

 private:
  static Tensor Allocate(const Tensor& like, std::vector<std::byte>& memory);
  void Copy(const Tensor& from, const Tensor& to, int64_t count, int64_t begin);

  WeightShard shard_;
  WeightShard block_;
  std::vector<std::byte> values_;
  std::vector<std::byte> remainder_;
  std::vector<std::byte> master_;
  HostAccess host_;
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_SHARD_WRITER_H_
