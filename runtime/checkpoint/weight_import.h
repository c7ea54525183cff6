#ifndef PANTHERA_RUNTIME_CHECKPOINT_WEIGHT_IMPORT_H_
#define PANTHERA_RUNTIME_CHECKPOINT_WEIGHT_IMPORT_H_

#include "absl/status/status.h"

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/weight_files.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// Sets this rank's shards to the values that the tensors of the same names have in `weights`,
// rounded to nearest where the storage keeps less than the file. `weights` must have every
// parameter, in its logical shape and a weight type. Reads what lies in the shards, a block at a
// time, and nothing else but what lies between the short rows of a slice of columns; replicated
// groups lie in all shards. Publish() afterwards brings the values to every rank. Local. After an
// error, such as a number that is not finite, the shards' contents are undefined.
absl::Status ImportShards(FileSystem& files, const WeightFiles& weights, ParameterStore& params);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_WEIGHT_IMPORT_H_
