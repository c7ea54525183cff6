// The arithmetic of this folder on a GPU: contracts, shapes and checks are those of the function
// with the same name; these only enqueue work on `stream`. In a build without CUDA they abort.
#ifndef PANTHERA_RUNTIME_COMM_CUDA_KERNELS_H_
#define PANTHERA_RUNTIME_COMM_CUDA_KERNELS_H_

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/gemm.h"

namespace panthera::cuda {

// reduce.cu
void SumRows(const Tensor& contributions, float scale, Accumulate accumulate, Tensor out,
             Stream& stream);

}  // namespace panthera::cuda

#endif  // PANTHERA_RUNTIME_COMM_CUDA_KERNELS_H_
