// Loading weights and optimizer state that a checkpoint keeps in another precision than this run.
//
// Weights: the stored parts are joined to the fp32 value that they stand for (bf16+8 has its upper
// 24 bits, bf16 its upper 16) and stored anew, rounded to nearest. So what a storage that keeps as
// much or more takes over comes back bit for bit: fp32 -> bf16+fp32, bf16 -> anything, bf16+8 ->
// fp32 or bf16+fp32. State likewise, between fp32 and bf16; it holds nothing below 2^-126 but 0, so
// nothing is to be flushed.
//
// How the checkpoint keeps a thing follows from its sets and their types, not from options. Where
// that is how this run keeps it, it is read to its place. Where it is not, each rank takes host
// memory for its shard of one group at a time, as stored, and about 10 MB besides.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_PRECISION_CHANGE_H_
#define PANTHERA_RUNTIME_CHECKPOINT_PRECISION_CHANGE_H_

#include <vector>

#include "absl/status/status.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/parameter_pieces.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// In which storage a checkpoint keeps its weights: kBf16PlusFp32 if it has a set "master",
// kBf16Plus8 if it has "remainder"; otherwise kBf16 if any tensor of "model" is bf16, and kFp32.
WeightStorage StoredWeights(const Checkpoint& checkpoint);

// Sets this rank's shards of all parameters to those of a checkpoint, which may have been saved
// with any other sharding and storage. Rank 0 logs a change of storage and whether it rounds.
// Publish() afterwards brings the values to every rank. Collective; every rank gets the same
// status, after an error the shards' contents are undefined. Errors are those of LoadPieces.
absl::Status LoadWeights(FileSystem& files, HostGroup& host, const Checkpoint& checkpoint,
                         const ParameterStore& params);

// The same for optimizer state, fp32 or bf16: fills the data of all shards, which must be those of
// all sets that the ranks want. All shards of a set have the same type here, and one type in the
// checkpoint.
absl::Status LoadStates(FileSystem& files, HostGroup& host, const Checkpoint& checkpoint,
                        const ParameterStore& params, const std::vector<SavedShard>& shards);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_PRECISION_CHANGE_H_
