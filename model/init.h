#ifndef PANTHERA_MODEL_INIT_H_
#define PANTHERA_MODEL_INIT_H_

#include <cstdint>

#include "runtime/params/parameter_store.h"

namespace panthera {

// Sets this rank's shards to initial values: element i of a logical tensor is mean + deviation *
// z_i, z_i standard normal from Philox keyed by (seed, the tensor's name) at counter i
// (Box-Muller), rounded to nearest. The same seed gives the same model on every mesh of one kind of
// device, however tensors are cut into slices and shards. Logarithm,
// sine and cosine in double precision may differ in their last places between a GPU and the CPU, so
// their values, having been rounded, agree but for a few that are neighbours in the storage's
// precision. Publish() afterwards brings the values to every rank. Blocks the host until a GPU is
// done.
void InitializeShards(ParameterStore& params, int64_t seed);

}  // namespace panthera

#endif  // PANTHERA_MODEL_INIT_H_
