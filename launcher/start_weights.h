// How a new run begins with the weights of another model (TrainOptions::start_from).
#ifndef PANTHERA_LAUNCHER_START_WEIGHTS_H_
#define PANTHERA_LAUNCHER_START_WEIGHTS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "launcher/model_instance.h"
#include "launcher/run_options.h"
#include "launcher/weight_source.h"
#include "launcher/world.h"
#include "runtime/checkpoint/file.h"
#include "runtime/comm/host_group.h"

namespace panthera {

// Opens what train.start_from names and checks that it is the model that `options` describe. The
// length of sequences may differ. A model with tie = "swap_halves" may begin with an untied one
// whose output matrix is the embedding with its halves exchanged, as our checkpoints hold it; each
// rank compares its share of the rows. Errors name the keys and what helps. Collective; every rank
// gets the same status.
absl::StatusOr<WeightSource> OpenStartWeights(FileSystem& files, HostGroup& host,
                                              const RunOptions& options);

// Sets the parameters to those weights on every rank, of which each reads its shard. Collective;
// every rank gets the same status.
absl::Status LoadStartWeights(FileSystem& files, World& world, ModelInstance& instance,
                              const WeightSource& source);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_START_WEIGHTS_H_
