#include "runtime/params/parameter_store.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace panthera {
namespace {

// Where one parameter's elements [begin, end) of the flat group cross [shard_first, shard_last).
std::optional<ShardSegment> Intersect(ParamId id, int64_t begin, int64_t end, int64_t shard_first,
                                      int64_t shard_last) {
  const int64_t first = std::max(begin, shard_first);
  const int64_t last = std::min(end, shard_last);
  if (first >= last) {
    return std::nullopt;
  }
  return ShardSegment{id, first - begin, first - shard_first, last - first};
}

}  // namespace

GroupId ParameterStore::AddGroup(std::string name, GroupKind kind) {
  CHECK_EQ(ranks_, 0) << "group " << name << " was added after Allocate";
  Group group;
  group.layout.name = std::move(name);
  group.layout.kind = kind;
  groups_.push_back(std::move(group));
  return GroupId{num_groups() - 1};
}

ParamId ParameterStore::Add(GroupId group, ParamSpec spec) {
  CHECK_EQ(ranks_, 0) << spec.name << " was added after Allocate";
  CHECK_GE(group.index, 0) << spec.name;
  CHECK_LT(group.index, num_groups()) << spec.name;
  CHECK(!Find(spec.name).has_value()) << spec.name << " is already there";
  CHECK_GT(spec.shape.elements(), 0) << spec.name;
  GroupLayout& layout = groups_[static_cast<size_t>(group.index)].layout;
  for (const ParamId other : layout.params) {
    CHECK(spec.kind != ParamKind::kEmbedding && param(other).spec.kind != ParamKind::kEmbedding)
        << "an embedding table must be alone in its group: " << spec.name << " and "
        << param(other).spec.name << " are in " << layout.name;
  }
  CHECK(layout.kind == GroupKind::kSharded || !spec.slice.has_value())
      << spec.name << " is a slice in " << layout.name << ", which every rank has whole";
  if (spec.kind == ParamKind::kEmbedding) {
    CHECK_EQ(spec.shape.rank(), 2) << spec.name;
    CHECK_EQ(spec.logical_shape()[1], spec.shape[1]) << spec.name << " must have whole rows";
    layout.block_elements = spec.shape[1];
  }
  const ParamId id{num_params()};
  layout.params.push_back(id);
  params_.push_back({std::move(spec), group, 0});
  return id;
}

void ParameterStore::LayOut(Group& group, int ranks, int rank) {
  GroupLayout& layout = group.layout;
  CHECK(!layout.params.empty()) << "group " << layout.name << " has no parameters";
  int64_t end = 0;
  for (const ParamId id : layout.params) {
    Param& parameter = params_[static_cast<size_t>(id.index)];
    parameter.offset = end;
    end = RoundUp(end + parameter.spec.shape.elements(), layout.block_elements);
  }
  const bool sharded = layout.kind == GroupKind::kSharded;
  const int64_t shards = sharded ? ranks : 1;
  const int64_t shard_index = sharded ? rank : 0;
  layout.shard_elements = RoundUp(CeilDiv(end, shards), layout.block_elements);
  layout.elements = layout.shard_elements * shards;
  const int64_t shard_first = shard_index * layout.shard_elements;
  for (const ParamId id : layout.params) {
    const int64_t begin = offset(id);
    const int64_t elements = spec(id).shape.elements();
    group.group_segments.push_back({id, 0, begin, elements});
    if (const auto segment = Intersect(id, begin, begin + elements, shard_first,
                                       shard_first + layout.shard_elements)) {
      group.segments.push_back(*segment);
    }
  }
}

void ParameterStore::Allocate(Device device, MemoryLedger& ledger, Communicator& data_parallel,
                              WeightStorage storage, LowBits low_bits) {
  CHECK_EQ(ranks_, 0) << "Allocate is called once";
  storage_ = storage;
  low_bits_ = low_bits;
  rank_ = data_parallel.rank();
  ranks_ = data_parallel.size();
  updated_.emplace(device);
  for (Group& group : groups_) {
    published_.emplace_back(device);
    LayOut(group, ranks_, rank_);
    GroupLayout& layout = group.layout;
    const bool sharded = layout.kind == GroupKind::kSharded;
    layout.value_dtype = sharded ? ValueDType(storage) : DType::kF32;
    group.values = data_parallel.Allocate(device, ledger, MemoryCategory::kWeights, "weights",
                                          layout.elements * SizeOf(layout.value_dtype));
    if (sharded && storage == WeightStorage::kBf16Plus8) {
      AllocateLowBits(device, ledger, data_parallel, group);
    }
    if (sharded && storage == WeightStorage::kBf16PlusFp32) {
      group.master = Buffer(device, ledger, MemoryCategory::kOptimizerState, "master weights",
                            layout.shard_elements * SizeOf(DType::kF32));
    }
  }
}

void ParameterStore::AllocateLowBits(Device device, MemoryLedger& ledger,
                                     Communicator& data_parallel, Group& group) const {
  constexpr MemoryCategory kCategory = MemoryCategory::kOptimizerState;
  constexpr char kName[] = "low bits";
  if (low_bits_ == LowBits::kReplicated) {
    group.low_bits =
        data_parallel.Allocate(device, ledger, kCategory, kName, group.layout.elements);
  } else {
    group.low_bits = Buffer(device, ledger, kCategory, kName, group.layout.shard_elements);
  }
}

std::optional<ParamId> ParameterStore::Find(absl::string_view name) const {
  for (int i = 0; i < num_params(); ++i) {
    if (params_[static_cast<size_t>(i)].spec.name == name) {
      return ParamId{i};
    }
  }
  return std::nullopt;
}

int64_t ParameterStore::total_elements() const {
  int64_t sum = 0;
  for (const Param& parameter : params_) {
    sum += parameter.spec.logical_shape().elements();
  }
  return sum;
}

Tensor ParameterStore::value(ParamId id) const {
  const Group& group = this->group(group_of(id));
  CHECK_GT(ranks_, 0) << spec(id).name << " is read before Allocate";
  const DType dtype = group.layout.value_dtype;
  return group.values.View(spec(id).shape, dtype, offset(id) * SizeOf(dtype));
}

std::optional<Tensor> ParameterStore::FusedRows(std::span<const ParamId> ids) const {
  CHECK(!ids.empty());
  const Tensor first = value(ids[0]);
  int64_t rows = first.size(0);
  for (size_t i = 1; i < ids.size(); ++i) {
    const Shape& before = spec(ids[i - 1]).shape;
    const Shape& shape = spec(ids[i]).shape;
    const bool adjacent = group_of(ids[i]) == group_of(ids[0]) &&
                          offset(ids[i]) == offset(ids[i - 1]) + before.elements();
    if (!adjacent || shape.WithLeading(1) != before.WithLeading(1)) {
      return std::nullopt;
    }
    rows += shape[0];
  }
  return Tensor(first.bytes_data(), first.shape().WithLeading(rows), first.dtype(), first.device());
}

Tensor ParameterStore::group_values(GroupId id) const {
  CHECK_GT(ranks_, 0) << "group " << layout(id).name << " is read before Allocate";
  const GroupLayout& layout = this->layout(id);
  return group(id).values.View({layout.elements / layout.shard_elements, layout.shard_elements},
                               layout.value_dtype);
}

WeightShard ParameterStore::shard(GroupId id) const {
  const Group& group = this->group(id);
  const Shape shape = {group.layout.shard_elements};
  const bool sharded = group.layout.kind == GroupKind::kSharded;
  const int64_t row = sharded ? rank_ : 0;
  WeightShard shard;
  shard.storage = sharded ? storage_ : WeightStorage::kFp32;
  shard.values = group_values(id).Slice(row, row + 1).Reshape(shape);
  if (shard.storage == WeightStorage::kBf16Plus8) {
    const bool replicated = low_bits_ == LowBits::kReplicated;
    shard.remainder =
        group.low_bits.View(shape, DType::kU8, replicated ? row * shape.elements() : 0);
  }
  if (shard.storage == WeightStorage::kBf16PlusFp32) {
    shard.master = group.master.View(shape, DType::kF32);
  }
  return shard;
}

WeightShard ParameterStore::group_weights(GroupId id) const {
  const Group& group = this->group(id);
  const Shape shape = {group.layout.elements};
  WeightShard whole;
  whole.storage = shard(id).storage;
  whole.values = group_values(id).Reshape(shape);
  if (whole.storage == WeightStorage::kBf16Plus8 && low_bits_ == LowBits::kReplicated) {
    whole.remainder = group.low_bits.View(shape, DType::kU8);
  }
  return whole;
}

void ParameterStore::Publish(Communicator& data_parallel, Stream& compute, Stream& exchange) {
  FollowUpdate(compute, exchange);
  for (int i = 0; i < num_groups(); ++i) {
    if (layout(GroupId{i}).kind == GroupKind::kSharded) {
      PublishGroup(GroupId{i}, data_parallel, exchange);
    }
  }
}

void ParameterStore::PublishGroup(GroupId id, Communicator& data_parallel, Stream& exchange) {
  CHECK_EQ(data_parallel.size(), ranks_);
  CHECK_EQ(data_parallel.rank(), rank_);
  CHECK(layout(id).kind == GroupKind::kSharded) << layout(id).name;
  const WeightShard own = shard(id);
  const WeightShard whole = group_weights(id);
  const Shape by_rank = group_values(id).shape();
  data_parallel.AllGather(own.values, whole.values.Reshape(by_rank), exchange);
  if (whole.remainder.has_value()) {
    data_parallel.AllGather(*own.remainder, whole.remainder->Reshape(by_rank), exchange);
  }
  MarkPublished(id, exchange);
}

void ParameterStore::FollowUpdate(Stream& compute, Stream& exchange) {
  updated_->Record(compute);
  exchange.WaitFor(*updated_);
}

void ParameterStore::MarkPublished(GroupId id, Stream& exchange) {
  CHECK_GE(id.index, 0);
  published_.at(static_cast<size_t>(id.index)).Record(exchange);
}

void ParameterStore::AwaitPublished(GroupId id, Stream& reader) const {
  CHECK_GE(id.index, 0);
  reader.WaitFor(published_.at(static_cast<size_t>(id.index)));
}

const ParameterStore::Param& ParameterStore::param(ParamId id) const {
  CHECK_GE(id.index, 0);
  CHECK_LT(id.index, num_params());
  return params_[static_cast<size_t>(id.index)];
}

const ParameterStore::Group& ParameterStore::group(GroupId id) const {
  CHECK_GE(id.index, 0);
  CHECK_LT(id.index, num_groups());
  return groups_[static_cast<size_t>(id.index)];
}

}  // namespace panthera
