#include "runtime/checkpoint/parameter_pieces.h"

#include <utility>

#include "runtime/base/check.h"

namespace panthera {

void AppendShardPieces(const ParameterStore& store, GroupId group, const Tensor& shard, int rank,
                       PieceUse use, std::vector<TensorPiece>& pieces) {
  const GroupLayout& layout = store.layout(group);
  CHECK_EQ(shard.elements(), layout.shard_elements) << layout.name;
  if (layout.kind == GroupKind::kReplicated && use == PieceUse::kSave && rank != 0) {
    return;
  }
  const Tensor flat = shard.Reshape({shard.elements()});
  for (const ShardSegment& segment : store.segments(group)) {
    const ParamSpec& spec = store.spec(segment.param);
    int64_t begin = segment.shard_begin;
    for (const ElementRuns& runs :
         RunsOf(spec.logical_elements(), segment.param_begin, segment.elements)) {
      const int64_t end = begin + runs.elements();
      pieces.push_back({spec.name, spec.logical_shape(), runs, flat.Slice(begin, end)});
      begin = end;
    }
  }
}

std::vector<TensorSet> WeightSets(const ParameterStore& store, int rank, PieceUse use) {
  TensorSet values{"model", {}, {}};
  TensorSet remainders{"remainder", {}, {}};
  TensorSet masters{"master", {}, {}};
  bool has_remainders = false;
  bool has_masters = false;
  for (int i = 0; i < store.num_groups(); ++i) {
    const GroupId group{i};
    const WeightShard shard = store.shard(group);
    AppendShardPieces(store, group, shard.values, rank, use, values.pieces);
    if (shard.remainder.has_value()) {
      has_remainders = true;
      AppendShardPieces(store, group, *shard.remainder, rank, use, remainders.pieces);
    }
    if (shard.master.has_value()) {
      has_masters = true;
      AppendShardPieces(store, group, *shard.master, rank, use, masters.pieces);
    }
  }
  std::vector<TensorSet> sets;
  sets.push_back(std::move(values));
  if (has_remainders) {
    sets.push_back(std::move(remainders));
  }
  if (has_masters) {
    sets.push_back(std::move(masters));
  }
  return sets;
}

}  // namespace panthera
