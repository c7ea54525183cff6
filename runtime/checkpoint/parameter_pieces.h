#ifndef PANTHERA_RUNTIME_CHECKPOINT_PARAMETER_PIECES_H_
#define PANTHERA_RUNTIME_CHECKPOINT_PARAMETER_PIECES_H_

#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Replicated groups lie whole on every rank: rank 0 saves them, all load them.
enum class PieceUse { kSave, kLoad };

// Appends the pieces of a group that lie in one rank's shard of it, as parts of the logical
// tensors. `shard` has one element for each of the group's shard_elements: the weights, or a kind
// of optimizer state that lies the same way. Padding belongs to no piece. `rank` is that in the
// whole mesh.
void AppendShardPieces(const ParameterStore& store, GroupId group, const Tensor& shard, int rank,
                       PieceUse use, std::vector<TensorPiece>& pieces);

// What a checkpoint's set holds of a group on this rank: a tensor as AppendShardPieces takes it.
struct SavedShard {
  std::string set;
  GroupId group;
  Tensor data;
};

// All that the store keeps, as views: in set "model" the values that layers read and, as the
// storage wants, in "remainder" or "master" what they lack. After loading, Publish brings the
// values to all ranks.
std::vector<SavedShard> WeightShards(const ParameterStore& store);

// The pieces of shards, set by set in the order in which the sets first occur.
std::vector<TensorSet> SetsOf(const ParameterStore& store, const std::vector<SavedShard>& shards,
                              int rank, PieceUse use);

// SetsOf(WeightShards).
std::vector<TensorSet> WeightSets(const ParameterStore& store, int rank, PieceUse use);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_PARAMETER_PIECES_H_
