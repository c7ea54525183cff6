#ifndef PANTHERA_MODEL_OPS_SWAP_HALVES_H_
#define PANTHERA_MODEL_OPS_SWAP_HALVES_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// Exchanges the first and the second half of every row's features:
//
//   out[n, c] = x[n, (c + C/2) mod C]
//   x, out  [N, C] one float type, C even
//
// Its own inverse, so also its own gradient. out is overwritten and does not overlap x. Between the
// final features and a tied output matrix it breaks the tie's habit of predicting the token just
// read (Su 2023, https://kexue.fm/archives/9698).
void SwapHalves(Context& ctx, const Tensor& x, Tensor out);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_SWAP_HALVES_H_
