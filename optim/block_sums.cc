#include "optim/block_sums.h"

#include "runtime/base/check.h"

namespace panthera {

BlockSums::BlockSums(Context& ctx, const ParameterStore& store, Communicator& data_parallel,
                     const std::string& name, absl::FunctionRef<bool(GroupId)> include)
    : store_(store), rank_(data_parallel.rank()), ranks_(data_parallel.size()) {
  int64_t own = 0;
  for (int i = 0; i < store.num_groups(); ++i) {
    const GroupLayout& layout = store.layout(GroupId{i});
    Place place;
    place.included = include(GroupId{i});
    place.kind = layout.kind;
    if (place.included) {
      int64_t& end = layout.kind == GroupKind::kSharded ? row_ : own;
      place.blocks = layout.shard_elements / layout.block_elements;
      place.begin = end;
      end += place.blocks;
    }
    places_.push_back(place);
  }
  gathered_ = data_parallel.Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication,
                                     name, ranks_ * row_ * SizeOf(DType::kF64));
  own_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, name,
                own * SizeOf(DType::kF64));
  sums_memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, name,
                        store.num_params() * SizeOf(DType::kF64));
  param_sums_ = sums_memory_.View({store.num_params()}, DType::kF64);
  AddRuns(ctx.device());
}

void BlockSums::AddRuns(Device device) {
  for (int i = 0; i < store_.num_params() && !device.is_meta(); ++i) {
    const ParamId id{i};
    const GroupId group = store_.group_of(id);
    const Place& place = this->place(group);
    if (!place.included) {
      continue;
    }
    const int64_t size = store_.layout(group).block_elements;
    const bool sharded = place.kind == GroupKind::kSharded;
    const auto* sums = reinterpret_cast<const double*>((sharded ? gathered_ : own_).data());
    runs_.push_back({.sums = sums + place.begin,
                     .first_block = store_.offset(id) / size,
                     .num_blocks = CeilDiv(store_.spec(id).shape.elements(), size),
                     .shard_blocks = place.blocks,
                     .row = row_,
                     .param = id.index});
  }
}

Tensor BlockSums::local(GroupId id) const {
  const Place& place = this->place(id);
  CHECK(place.included) << "group " << store_.layout(id).name;
  const bool sharded = place.kind == GroupKind::kSharded;
  const int64_t begin = sharded ? rank_ * row_ + place.begin : place.begin;
  return (sharded ? gathered_ : own_)
      .View({place.blocks}, DType::kF64, begin * SizeOf(DType::kF64));
}

void BlockSums::Gather(Communicator& data_parallel, Stream& stream) {
  CHECK_EQ(data_parallel.size(), ranks_);
  if (row_ == 0) {
    return;
  }
  const Tensor all = gathered_.View({ranks_, row_}, DType::kF64);
  data_parallel.AllGather(all.Slice(rank_, rank_ + 1).Reshape({row_}), all, stream);
}

void BlockSums::SumParams(Stream& stream) {
  if (stream.device().is_cuda()) {
    cuda::SumBlockRuns(stream, runs_, param_sums_);
    return;
  }
  for (const BlockRun& run : runs_) {
    double sum = 0;
    for (int64_t block = run.first_block; block < run.first_block + run.num_blocks; ++block) {
      sum += run.sums[block / run.shard_blocks * run.row + block % run.shard_blocks];
    }
    param_sums_.data<double>()[run.param] = sum;
  }
}

}  // namespace panthera
