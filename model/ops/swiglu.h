#ifndef PANTHERA_MODEL_OPS_SWIGLU_H_
#define PANTHERA_MODEL_OPS_SWIGLU_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// The gated activation of Shazeer 2020 (arXiv:2002.05202), with g = gate_up[n, f] and
// u = gate_up[n, F + f]:
//
//   out[n,f] = silu(g) * u,   silu(g) = g * sigmoid(g)
//   gate_up [N, 2F], out [N, F]  one float type
//
// out is overwritten and does not overlap gate_up.
void SwiGlu(Context& ctx, const Tensor& gate_up, Tensor out);

//   dgate_up[n, f]     = dout[n,f] * u * sigmoid(g) * (1 + g * (1 - sigmoid(g)))
//   dgate_up[n, F + f] = dout[n,f] * silu(g)
//   dout [N, F], gate_up and dgate_up [N, 2F]  one float type
//
// dgate_up is overwritten and may be gate_up.
void SwiGluBackward(Context& ctx, const Tensor& dout, const Tensor& gate_up, Tensor dgate_up);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_SWIGLU_H_
