#ifndef PANTHERA_RUNTIME_PARAMS_PARAMETER_STORE_H_
#define PANTHERA_RUNTIME_PARAMS_PARAMETER_STORE_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "runtime/base/fields.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/buffer.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/params/param_spec.h"
#include "runtime/params/weight_shard.h"

namespace panthera {

// Sums over a logical tensor are taken over blocks of this many elements (one row, for an
// embedding table), fp32 inside a block and double across blocks in index order. Shards end on
// block boundaries, so a sum has the same bits for every number of data-parallel ranks.
inline constexpr int64_t kSumBlockElements = 1024;

struct ParamId {
  int index = -1;
  auto operator<=>(const ParamId&) const = default;
};
struct GroupId {
  int index = -1;
  auto operator<=>(const GroupId&) const = default;
};

enum class GroupKind : uint8_t {
  kSharded,     // every data-parallel rank owns an equal part of the flat group and updates it
  kReplicated,  // every rank of the mesh owns and updates all of it; fp32; for the few gains and
                // biases, which are never slices
};

// How a group lies in memory. A group is one flat array: its parameters one after the other, each
// beginning on a block boundary, then zero padding so that all shards are equally long and end on
// block boundaries. Order of registration is order in memory.
struct GroupLayout {
  std::string name;
  GroupKind kind = GroupKind::kSharded;
  DType value_dtype = DType::kF32;
  int64_t block_elements = kSumBlockElements;
  int64_t elements = 0;        // with padding
  int64_t shard_elements = 0;  // elements / data-parallel size, or elements when replicated
  std::vector<ParamId> params;
};

// A run of a parameter's elements that lies in this rank's shard of a group.
struct ShardSegment {
  ParamId param;
  int64_t param_begin;  // first element, counted in what this rank has of it (ParamSpec::shape)
  int64_t shard_begin;  // the same element, counted in the shard
  int64_t elements;
};

// Owns all parameters of one rank. Layers register tensors, hold ids, and read values; the
// optimizer sees shards; checkpoint and initialisation walk segments. Registration comes first,
// then one Allocate, then everything else.
class ParameterStore {
 public:
  ParameterStore() = default;
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  // The unit of communication and of sharding, usually one transformer block.
  GroupId AddGroup(std::string name, GroupKind kind);
  // An embedding table must be alone in its group.
  ParamId Add(GroupId group, ParamSpec spec);

  // Lays out and allocates all groups (zeroed) for the given data-parallel communicator. Layers
  // read fp32 values with WeightStorage::kFp32 and bf16 values with the others. `low_bits` matters
  // with kBf16Plus8 only.
  void Allocate(Device device, MemoryLedger& ledger, Communicator& data_parallel,
                WeightStorage storage, LowBits low_bits = LowBits::kSharded);

  int num_params() const { return static_cast<int>(params_.size()); }
  int num_groups() const { return static_cast<int>(groups_.size()); }
  const ParamSpec& spec(ParamId id) const { return param(id).spec; }
  GroupId group_of(ParamId id) const { return param(id).group; }
  std::optional<ParamId> Find(absl::string_view name) const;
  // The sum of all logical tensors' elements, without padding; slices count whole.
  int64_t total_elements() const;

  const GroupLayout& layout(GroupId id) const { return group(id).layout; }
  // First element of a parameter in its flat group.
  int64_t offset(ParamId id) const { return param(id).offset; }
  // What of which parameters this rank's shard holds, in order; padding is in no segment.
  const std::vector<ShardSegment>& segments(GroupId id) const { return group(id).segments; }
  // The same of the whole flat group, as if it were one shard.
  const std::vector<ShardSegment>& group_segments(GroupId id) const {
    return group(id).group_segments;
  }

  // A parameter as layers read it: ParamSpec::shape, the group's value_dtype.
  Tensor value(ParamId id) const;
  // Several parameters of the same width as one matrix of all their rows, if they lie next to each
  // other without padding in between.
  std::optional<Tensor> FusedRows(std::span<const ParamId> ids) const;
  // A whole flat group as layers read it: [data-parallel size, shard_elements], or [1, elements]
  // when replicated.
  Tensor group_values(GroupId id) const;
  // This rank's part with all the precision there is: what the optimizer updates.
  WeightShard shard(GroupId id) const;
  // The whole flat group, [elements], with what every rank has of all shards: the values, and the
  // low bits if they are replicated.
  WeightShard group_weights(GroupId id) const;

  // Brings the updated shards of all ranks to every rank, values and replicated low bits: an
  // all-gather of either per sharded group, in order, enqueued on `exchange` behind the work that
  // `compute` has so far. May block on the peers.
  void Publish(Communicator& data_parallel, Stream& compute, Stream& exchange);
  // What Publish consists of, for who brings some groups to other ranks in another way. Work
  // enqueued on `exchange` from now on follows the work that `compute` has so far.
  void FollowUpdate(Stream& compute, Stream& exchange);
  // Publishes one sharded group.
  void PublishGroup(GroupId id, Communicator& data_parallel, Stream& exchange);
  // The group has come to this rank with the work that `exchange` has so far.
  void MarkPublished(GroupId id, Stream& exchange);
  // Work enqueued on `reader` from now on waits until the group's values have come. Whoever reads
  // values of a sharded group calls it before, on the stream on which it reads.
  void AwaitPublished(GroupId id, Stream& reader) const;

 private:
  struct Param {
    ParamSpec spec;
    GroupId group;
    int64_t offset = 0;
  };
  struct Group {
    GroupLayout layout;
    std::vector<ShardSegment> segments;
    std::vector<ShardSegment> group_segments;
    Buffer values;
    Buffer low_bits;  // of the shard, or of the group
    Buffer master;
  };

  const Param& param(ParamId id) const;
  const Group& group(GroupId id) const;
  void LayOut(Group& group, int ranks, int rank);
  void AllocateLowBits(Device device, MemoryLedger& ledger, Communicator& data_parallel,
                       Group& group) const;

  std::vector<Param> params_;
  std::vector<Group> groups_;
  WeightStorage storage_ = WeightStorage::kFp32;
  LowBits low_bits_ = LowBits::kSharded;
  int rank_ = 0;
  int ranks_ = 0;  // 0 until allocated
  std::optional<Event> updated_;
  std::vector<Event> published_;  // by GroupId
};

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_PARAMETER_STORE_H_
