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

double BlockSums::Sum(const Place& place, int64_t begin, int64_t end) const {
  if (gathered_.device().is_meta()) {
    return 0;
  }
  const bool sharded = place.kind == GroupKind::kSharded;
  const auto* sums = reinterpret_cast<const double*>((sharded ? gathered_ : own_).data());
  double total = 0;
  for (int64_t block = begin; block < end; ++block) {
    const int64_t rank = block / place.blocks;
    total += sums[rank * row_ + place.begin + block % place.blocks];
  }
  return total;
}

double BlockSums::ParamSum(ParamId id) const {
  const GroupId group = store_.group_of(id);
  CHECK(includes(group)) << store_.spec(id).name;
  const int64_t size = store_.layout(group).block_elements;
  const int64_t begin = store_.offset(id) / size;
  return Sum(place(group), begin, begin + CeilDiv(store_.spec(id).shape.elements(), size));
}

double BlockSums::Total() const {
  double total = 0;
  for (int i = 0; i < store_.num_groups(); ++i) {
    const GroupId group{i};
    if (includes(group)) {
      // Parameter by parameter, so that the amount of padding leaves no trace.
      for (const ParamId id : store_.layout(group).params) {
        total += ParamSum(id);
      }
    }
  }
  return total;
}

}  // namespace panthera
