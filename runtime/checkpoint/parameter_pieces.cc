#include "runtime/checkpoint/parameter_pieces.h"

#include <algorithm>

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

std::vector<SavedShard> WeightShards(const ParameterStore& store) {
  std::vector<SavedShard> shards;
  for (int i = 0; i < store.num_groups(); ++i) {
    const GroupId group{i};
    const WeightShard shard = store.shard(group);
    shards.push_back({"model", group, shard.values});
    if (shard.remainder.has_value()) {
      shards.push_back({"remainder", group, *shard.remainder});
    }
    if (shard.master.has_value()) {
      shards.push_back({"master", group, *shard.master});
    }
  }
  return shards;
}

std::vector<TensorSet> SetsOf(const ParameterStore& store, const std::vector<SavedShard>& shards,
                              int rank, PieceUse use) {
  std::vector<TensorSet> sets;
  for (const SavedShard& shard : shards) {
    auto set = std::find_if(sets.begin(), sets.end(),
                            [&](const TensorSet& known) { return known.name == shard.set; });
    if (set == sets.end()) {
      set = sets.insert(set, {.name = shard.set, .pieces = {}, .derived = {}});
    }
    AppendShardPieces(store, shard.group, shard.data, rank, use, set->pieces);
  }
  return sets;
}

std::vector<TensorSet> WeightSets(const ParameterStore& store, int rank, PieceUse use) {
  return SetsOf(store, WeightShards(store), rank, use);
}

}  // namespace panthera
