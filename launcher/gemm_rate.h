#ifndef PANTHERA_LAUNCHER_GEMM_RATE_H_
#define PANTHERA_LAUNCHER_GEMM_RATE_H_

#include "model/options.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/math/context.h"

namespace panthera {

// The floating-point operations per second that the whole job's matrix products reach, measured:
// every rank multiplies at the same time, for a fraction of a second, [rows, C] by [C, F] matrices
// of the model's sizes and type in the arena; the best of several repetitions per rank, summed over
// the ranks. What a step's rate is compared with. Ranks meet in `host_axes`, in which host
// tensors travel whatever the context's device. Blocks on the peers. 0 on kMeta.
double MeasureGemmRate(Context& ctx, const ModelOptions& options, DType dtype,
                       const MeshAxes& host_axes);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_GEMM_RATE_H_
