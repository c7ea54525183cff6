#ifndef PANTHERA_OPTIM_DIRECTION_EXCHANGE_H_
#define PANTHERA_OPTIM_DIRECTION_EXCHANGE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"

#include "optim/cuda_kernels.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// What the rates in a message are of.
enum class RateUnit : uint8_t {
  kTensor,  // one for each tensor of the group, in the group's order
  kBlock,   // one for each sum block of the shard: the rows of an embedding table
};

// Where the parts of a message lie, in bytes. A message tells what a step does to a rank's shard of
// a group:
//
//   factors  [tensors] fp32                      every element of a tensor shrinks by this towards
//                                                its centre (ShrinkTowards), before it moves
//   rates    [tensors] or [blocks] fp32          of the steps
//   codes    [blocks, code_bytes] u8             of direction_codes.h; a block begins with a byte
//
// A tensor that has nothing in the shard has no factor and no rate: what lies there is undefined.
struct DirectionLayout {
  RateUnit rate_unit = RateUnit::kTensor;
  int64_t num_tensors = 0;
  int64_t num_rates = 0;
  int64_t num_blocks = 0;
  int64_t code_bytes = 0;
  int64_t rates_begin = 0;
  int64_t codes_begin = 0;
  int64_t bytes = 0;

  DirectionLayout() = default;
  DirectionLayout(const GroupLayout& group, RateUnit unit);
};

// Views of a message.
struct DirectionMessage {
  DirectionLayout layout;
  Tensor factors;
  Tensor rates;
  Tensor codes;

  // The codes of a block of the shard. On the CPU.
  uint8_t* codes_of(int64_t block) const {
    return codes.data<uint8_t>() + block * layout.code_bytes;
  }
};

// Messages and the weights that they are about: `weights` are shards of a group in a row,
// `segments` what they hold, and messages[s], [shards, layout.bytes] u8, is about shard s.
struct DirectionReplay {
  static constexpr int64_t kNone = -1;

  DirectionLayout layout;
  Tensor messages;
  WeightShard weights;
  std::span<const ShardSegment> segments;
  int64_t skipped = kNone;       // a shard that keeps its bits
  uint64_t rounding_stream = 0;  // RoundingBits::stream
};

// For each element that does not rest, and each of a tensor whose factor is not 1:
//
//   theta = c + factor * (theta - c)                                  c = 1 for gains, 0 otherwise
//   theta = theta - rate * (direction + lambda * theta)               unless it rests
//
// and stores it, rounded as WriteWeights does. The rule of a parameter has lambda and the key of
// its random bits. Enqueued on `stream`.
void ReplayDirections(Stream& stream, const ParameterStore& store, GroupId group,
                      const DirectionReplay& replay, cuda::RuleOf rule);

// What the rates of a group's messages are of; nothing: no message is sent about the group.
using RateUnitOf = absl::FunctionRef<std::optional<RateUnit>(GroupId)>;

// How ranks tell each other of their steps with PublishMode::kDirection. In a step, for every
// group that is included, the optimizer fills in own(group) and calls ApplyOwn; then Publish brings
// all messages to all ranks, which do to the others' shards what ApplyOwn does to theirs: the same
// arithmetic on the same bits, so that the weights of all ranks remain equal. Sharded groups that
// are not included are published by their weights.
//
// Memory, entered as communication: this rank's messages, about a quarter of a byte for each
// element of its shards, and one place for all ranks' messages of the largest group.
class DirectionExchange {
 public:
  // The store must be allocated, with replicated low bits if it has low bits, and without master
  // weights. The references must outlive the exchange.
  // `rate_unit` is asked of sharded groups.
  DirectionExchange(Context& ctx, ParameterStore& store, Communicator& data_parallel,
                    RateUnitOf rate_unit);

  bool includes(GroupId id) const { return layout(id).bytes > 0; }
  // This rank's message about its shard of a group that is included, to be written by work that is
  // enqueued on `stream` from now on: it waits until the last Publish has sent what was there.
  DirectionMessage own(GroupId id, Stream& stream) const;
  // Updates this rank's shard. Enqueued on `stream`.
  void ApplyOwn(Stream& stream, GroupId id, uint64_t rounding_stream, cuda::RuleOf rule);
  // After ApplyOwn of all groups that are included on ctx.compute(): exchanges the messages and
  // updates the other ranks' shards, group by group, on ctx.exchange(). In place of
  // ParameterStore::Publish. May block on the peers.
  void Publish(Context& ctx, uint64_t rounding_stream, cuda::RuleOf rule);

 private:
  const DirectionLayout& layout(GroupId id) const {
    return layouts_[static_cast<size_t>(id.index)];
  }

  Tensor message(GroupId id) const;

  ParameterStore& store_;
  Communicator& data_parallel_;
  std::vector<DirectionLayout> layouts_;  // by GroupId; of groups that are not included: empty
  std::vector<Buffer> own_;               // by GroupId
  Buffer gathered_;
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_DIRECTION_EXCHANGE_H_
