#include "optim/direction_exchange.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "optim/direction_codes.h"
#include "optim/shard_blocks.h"
#include "optim/state_shards.h"
#include "runtime/base/check.h"
#include "runtime/math/op_times.h"

namespace panthera {
namespace {

// Parts of a message and messages begin at multiples of this: floats must begin at multiples of 4,
// and copies are fastest from and to multiples of 16.
constexpr int64_t kAlignment = 16;

DirectionMessage ViewsOf(const DirectionLayout& layout, const Tensor& bytes) {
  const auto part = [&](int64_t begin, const Shape& shape, DType dtype) {
    return Tensor(bytes.Slice(begin, layout.bytes).bytes_data(), shape, dtype, bytes.device());
  };
  return {layout, part(0, {layout.num_tensors}, DType::kF32),
          part(layout.rates_begin, {layout.num_rates}, DType::kF32),
          part(layout.codes_begin, {layout.num_blocks, layout.code_bytes}, DType::kU8)};
}

// One block on the CPU; `place` is that of its tensor in the group.
void ApplyToBlock(const DirectionReplay& replay, const ShardBlock& block, int64_t place,
                  const ParamSpec& spec, const cuda::ParamRule& rule) {
  const DirectionLayout& layout = replay.layout;
  const int64_t index = block.index % layout.num_blocks;
  const uint8_t* message =
      replay.messages.data<uint8_t>() + block.index / layout.num_blocks * layout.bytes;
  const float factor = reinterpret_cast<const float*>(message)[place];
  const float rate = reinterpret_cast<const float*>(
      message + layout.rates_begin)[layout.rate_unit == RateUnit::kBlock ? index : place];
  const uint8_t* codes = message + layout.codes_begin + index * layout.code_bytes;
  const float centre = spec.kind == ParamKind::kGain ? 1.0F : 0.0F;
  const RoundingBits bits = {rule.rounding_key, replay.rounding_stream, spec.logical_elements()};
  float theta[kChunkElements];
  ForEachChunk(block.elements, [&](int64_t offset, int64_t count) {
    const uint8_t* chunk_codes = codes + offset / kCodesPerByte;
    if (factor == 1 && AllRest(chunk_codes, count)) {
      return;
    }
    const int64_t begin = block.shard_begin + offset;
    ReadWeights(replay.weights, begin, count, theta);
    if (factor != 1) {
      ShrinkRow(centre, factor, count, theta);
    }
    StepByCodes(rate, rule.decay, chunk_codes, count, theta);
    WriteWeights(replay.weights, begin, count, theta, block.param_begin + offset, bits);
  });
}

}  // namespace

DirectionLayout::DirectionLayout(const GroupLayout& group, RateUnit unit)
    : rate_unit(unit),
      num_tensors(static_cast<int64_t>(group.params.size())),
      num_blocks(group.shard_elements / group.block_elements),
      code_bytes(CeilDiv(group.block_elements, kCodesPerByte)) {
  num_rates = unit == RateUnit::kBlock ? num_blocks : num_tensors;
  rates_begin = RoundUp(num_tensors * SizeOf(DType::kF32), kAlignment);
  codes_begin = RoundUp(rates_begin + num_rates * SizeOf(DType::kF32), kAlignment);
  bytes = RoundUp(codes_begin + num_blocks * code_bytes, kAlignment);
}

void ReplayDirections(Stream& stream, const ParameterStore& store, GroupId group,
                      const DirectionReplay& replay, cuda::RuleOf rule) {
  const GroupLayout& layout = store.layout(group);
  CHECK_SHAPE(replay.messages, replay.weights.values.elements() / layout.shard_elements,
              replay.layout.bytes);
  CHECK(replay.weights.storage != WeightStorage::kBf16PlusFp32) << "masters are sharded";
  if (stream.device().is_meta()) {
    return;
  }
  if (stream.device().is_cuda()) {
    cuda::ApplyDirections(stream, store, group, replay, rule);
    return;
  }
  std::vector<cuda::ParamRule> rules;
  std::transform(layout.params.begin(), layout.params.end(), std::back_inserter(rules), rule);
  ForEachBlock(replay.segments, layout.block_elements, [&](const ShardBlock& block) {
    if (block.index / replay.layout.num_blocks == replay.skipped) {
      return;
    }
    // Registration gives ascending ids.
    const auto place = std::lower_bound(layout.params.begin(), layout.params.end(), block.param) -
                       layout.params.begin();
    ApplyToBlock(replay, block, place, store.spec(block.param), rules[static_cast<size_t>(place)]);
  });
}

DirectionExchange::DirectionExchange(Context& ctx, ParameterStore& store,
                                     Communicator& data_parallel, RateUnitOf rate_unit)
    : store_(store), data_parallel_(data_parallel) {
  int64_t largest = 0;
  for (int i = 0; i < store.num_groups(); ++i) {
    const GroupLayout& group = store.layout(GroupId{i});
    DirectionLayout layout;
    Buffer memory;
    if (group.kind == GroupKind::kSharded) {
      if (const std::optional<RateUnit> unit = rate_unit(GroupId{i})) {
        layout = DirectionLayout(group, *unit);
        memory = data_parallel.Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication,
                                        "directions", layout.bytes);
      }
    }
    largest = std::max(largest, layout.bytes);
    layouts_.push_back(layout);
    own_.push_back(std::move(memory));
  }
  if (data_parallel.size() > 1) {
    gathered_ = data_parallel.Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication,
                                       "directions of all ranks", data_parallel.size() * largest);
  }
}

Tensor DirectionExchange::message(GroupId id) const {
  CHECK(includes(id)) << "no message is sent about " << store_.layout(id).name;
  return own_[static_cast<size_t>(id.index)].View({layout(id).bytes}, DType::kU8);
}

DirectionMessage DirectionExchange::own(GroupId id, Stream& stream) const {
  store_.AwaitPublished(id, stream);
  return ViewsOf(layout(id), message(id));
}

void DirectionExchange::ApplyOwn(Stream& stream, GroupId id, uint64_t rounding_stream,
                                 cuda::RuleOf rule) {
  ReplayDirections(stream, store_, id,
                   {.layout = layout(id),
                    .messages = message(id).Reshape({1, layout(id).bytes}),
                    .weights = store_.shard(id),
                    .segments = store_.segments(id),
                    .rounding_stream = rounding_stream},
                   rule);
}

void DirectionExchange::Publish(Context& ctx, uint64_t rounding_stream, cuda::RuleOf rule) {
  Stream& exchange = ctx.exchange();
  const int64_t ranks = data_parallel_.size();
  store_.FollowUpdate(ctx.compute(), exchange);
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupId id{i};
    if (store_.layout(id).kind != GroupKind::kSharded) {
      continue;
    }
    if (!includes(id)) {
      store_.PublishGroup(id, data_parallel_, exchange);
      continue;
    }
    if (ranks > 1) {
      const WeightShard weights = store_.group_weights(id);
      const Tensor messages = gathered_.View({ranks, layout(id).bytes}, DType::kU8);
      data_parallel_.AllGather(message(id), messages, exchange);
      const OpTimer timer(ctx, {Op::kUpdate}, {.bytes = 2 * Traffic({weights.values})});
      ReplayDirections(exchange, store_, id,
                       {.layout = layout(id),
                        .messages = messages,
                        .weights = weights,
                        .segments = store_.group_segments(id),
                        .skipped = data_parallel_.rank(),
                        .rounding_stream = rounding_stream},
                       rule);
    }
    store_.MarkPublished(id, exchange);
  }
}

}  // namespace panthera
