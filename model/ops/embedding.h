#ifndef PANTHERA_MODEL_OPS_EMBEDDING_H_
#define PANTHERA_MODEL_OPS_EMBEDDING_H_

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"
#include "runtime/params/gradient_sink.h"

namespace panthera {

// out[n, :] = table[tokens[n], :]
//   tokens [N] kI32, each in [0, V)   table [V, C], out [N, C] one float type
// out is overwritten.
void EmbeddingForward(Context& ctx, const Tensor& tokens, const Tensor& table, Tensor out);

// dtable[v, :] (+)= sum over n with tokens[n] = v of dout[n, :]
//   tokens [N] kI32   dout [N, C] float   dtable.gradient [V, C] kF32
// With kOverwrite, rows of tokens that do not occur become zero; with kAdd they are not touched.
// A row's contributions are added one after the other, fp32, by ascending n, whatever the number
// of threads: positions are first sorted by token, stably, in arena scratch of 8 N + 8 V bytes. On
// a GPU they are added so inside runs of 128 sorted positions, and then over the runs; scratch of 8
// bytes for each of N rounded up to a power of two, and 8 C for each run.
void EmbeddingBackward(Context& ctx, const Tensor& tokens, const Tensor& dout,
                       const GradientTarget& dtable);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_EMBEDDING_H_
