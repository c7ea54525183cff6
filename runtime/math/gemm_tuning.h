#ifndef PANTHERA_RUNTIME_MATH_GEMM_TUNING_H_
#define PANTHERA_RUNTIME_MATH_GEMM_TUNING_H_

#include <span>

#include "runtime/math/context.h"
#include "runtime/math/gemm.h"
#include "runtime/math/gemm_algorithms.h"

namespace panthera {

// The fastest of the algorithms that cuBLASLt proposes for each of `products`, measured on the
// context's GPU with noise as operands. Of a product only its form counts, not the memory that it
// names: GemmEngine::planned_products() is such a list.
//
// Operands and scratch come from the arena, for the largest of the products at a time. On kMeta
// that is all that happens, and the result is empty; so it is on a CPU, whose library chooses by
// itself. Blocks the host; takes a few seconds for the products of a model. Not inside a step.
GemmAlgorithms TuneProducts(Context& ctx, std::span<const Product> products);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_GEMM_TUNING_H_
