#ifndef PANTHERA_MODEL_INIT_CUDA_H_
#define PANTHERA_MODEL_INIT_CUDA_H_

#include <cstdint>

#include "runtime/device/stream.h"
#include "runtime/params/parameter_store.h"

namespace panthera::cuda {

// Enqueues what InitializeShards does for one segment of a shard on a GPU: `spec` is that of its
// parameter, `key` that of the parameter's random numbers. In a build without CUDA it aborts.
void InitializeSegment(Stream& stream, const WeightShard& shard, const ShardSegment& segment,
                       const ParamSpec& spec, uint64_t key);

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_INIT_CUDA_H_
