// The ops of this folder on a GPU: contracts, shapes and checks are those of the op with the same
// name; these only enqueue work on `stream`. In a build without CUDA they abort.
#ifndef PANTHERA_RUNTIME_MATH_CUDA_KERNELS_H_
#define PANTHERA_RUNTIME_MATH_CUDA_KERNELS_H_

#include <cstdint>

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera::cuda {

// count_above.cu
void CountAbove(Stream& stream, float bound, const Tensor& x, Tensor count);

// row_squares.cu
void RowSquares(Stream& stream, const Tensor& x, Tensor squares);

// vector_ops.cu. AddSum adds this many sums, each over every kAddSumLanes-th element: a constant,
// so that the bits do not depend on the GPU.
inline constexpr int64_t kAddSumLanes = 1024;
void AddSum(Stream& stream, const Tensor& x, Tensor sum);
void AddColumnSums(Stream& stream, const Tensor& x, Tensor sums);
void MaxAbs(Stream& stream, const Tensor& x, Tensor largest);
void RoundToBf16(Stream& stream, const Tensor& in, Tensor out);
void Scale(Stream& stream, float factor, Tensor x);

// word_hash.cu.
void HashWords(Stream& stream, const Tensor& x, int64_t first_word, Tensor sum);

}  // namespace panthera::cuda

#endif  // PANTHERA_RUNTIME_MATH_CUDA_KERNELS_H_
