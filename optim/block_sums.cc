#include "optim/block_sums.h"

#include <span>

#include "runtime/base/check.h"

namespace panthera {
namespace {

// param_sums[run.param] = the sum of the run's blocks, added in double by index.
void SumRuns(std::span<const BlockRun> runs, Tensor param_sums, Stream& stream) {
  if (stream.device().is_cuda()) {
    cuda::SumBlockRuns(stream, runs, param_sums);
    return;
  }
  for (const BlockRun& run : runs) {
    double sum = 0;
    for (int64_t block = run.first_block; block < run.first_block + run.num_blocks; ++block) {
      sum += run.sums[block / run.shard_blocks * run.row + block % run.shard_blocks];
    }
    param_sums.data<double>()[run.param] = sum;
  }
}

}  // namespace

BlockSums::BlockSums(Context& ctx, const ParameterStore& store, MeshAxes axes,
                     const std::string& name, absl::FunctionRef<bool(GroupId)> include)
    : store_(store), axes_(axes) {
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
  gathered_ = axes.data().Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, name,
                                   axes.data().size() * row_ * SizeOf(DType::kF64));
  own_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, name,
                own * SizeOf(DType::kF64));
  const int64_t params = store.num_params();
  sums_memory_ = Buffer(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication, name,
                        params * SizeOf(DType::kF64));
  param_sums_ = sums_memory_.View({params}, DType::kF64);
  if (has_slices()) {
    slices_ = axes.tensor().Allocate(ctx.device(), ctx.ledger(), MemoryCategory::kCommunication,
                                     name, axes.tensor_size() * params * SizeOf(DType::kF64));
  }
  if (!ctx.device().is_meta()) {
    AddRuns();
    AddSliceRuns();
  }
}

void BlockSums::AddRuns() {
  for (int i = 0; i < store_.num_params(); ++i) {
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

void BlockSums::AddSliceRuns() {
  if (!has_slices()) {
    return;
  }
  const auto* sums = reinterpret_cast<const double*>(slices_.data());
  for (const BlockRun& run : runs_) {
    const GroupId group = store_.group_of(ParamId{run.param});
    const bool sharded = place(group).kind == GroupKind::kSharded;
    slice_runs_.push_back({.sums = sums + run.param,
                           .first_block = 0,
                           .num_blocks = sharded ? axes_.tensor_size() : 1,
                           .shard_blocks = 1,
                           .row = store_.num_params(),
                           .param = run.param});
  }
}

Tensor BlockSums::local(GroupId id) const {
  const Place& place = this->place(id);
  CHECK(place.included) << "group " << store_.layout(id).name;
  const bool sharded = place.kind == GroupKind::kSharded;
  const int64_t begin = sharded ? axes_.data().rank() * row_ + place.begin : place.begin;
  return (sharded ? gathered_ : own_)
      .View({place.blocks}, DType::kF64, begin * SizeOf(DType::kF64));
}

void BlockSums::SumParams(Stream& stream) {
  if (row_ > 0) {
    const int rank = axes_.data().rank();
    const Tensor all = gathered_.View({axes_.data().size(), row_}, DType::kF64);
    axes_.data().AllGather(all.Slice(rank, rank + 1).Reshape({row_}), all, stream);
  }
  if (!has_slices()) {
    SumRuns(runs_, param_sums_, stream);
    return;
  }
  const int rank = axes_.tensor_rank();
  const Tensor all = slices_.View({axes_.tensor_size(), store_.num_params()}, DType::kF64);
  const Tensor own = all.Slice(rank, rank + 1).Reshape({store_.num_params()});
  SumRuns(runs_, own, stream);
  axes_.tensor().AllGather(own, all, stream);
  SumRuns(slice_runs_, param_sums_, stream);
}

}  // namespace panthera
