#ifndef PANTHERA_MODEL_INIT_H_
#define PANTHERA_MODEL_INIT_H_

#include <cstdint>

#include "runtime/params/parameter_store.h"

namespace panthera {

// Sets this rank's shards to initial values: element i of a tensor is mean + deviation * z_i, z_i
// standard normal from Philox keyed by (seed, the tensor's name) at counter i (Box-Muller), rounded
// to nearest. The same seed gives the same model on every mesh. Publish() afterwards brings the
// values to every rank. CPU and kMeta.
void InitializeShards(ParameterStore& params, int64_t seed);

}  // namespace panthera

#endif  // PANTHERA_MODEL_INIT_H_
