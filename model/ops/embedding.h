#ifndef PANTHERA_MODEL_OPS_EMBEDDING_H_
#define PANTHERA_MODEL_OPS_EMBEDDING_H_

#include "model/ops/vocabulary_slice.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"
#include "runtime/params/gradient_sink.h"

namespace panthera {

// Of a table of which this rank has the rows of tokens [first, first + V):
//
//   out[n, :] = table[tokens[n] - first, :] where that row exists, else 0
//
//   tokens [N] kI32, each in [0, vocabulary)   table [V, C], out [N, C] one float type
// out is overwritten. Summed over ranks that have all rows between them it is the whole lookup, bit
// for bit but for the sign of zeros.
void EmbeddingForward(Context& ctx, const Tensor& tokens, const Tensor& table,
                      const VocabularySlice& slice, Tensor out);

// dtable[v, :] (+)= sum over n with tokens[n] = first + v of dout[n, :]
//   tokens [N] kI32, each in [0, vocabulary)   dout [N, C] float   dtable.gradient [V, C] kF32
// With kOverwrite, rows of tokens that do not occur become zero; with kAdd they are not touched.
// A row's contributions are added one after the other, fp32, by ascending n, whatever the number
// of threads: positions are first sorted by token, stably, in arena scratch of 8 N + 8 V bytes. On
// a GPU they are added so inside runs of 128 positions, sorted by token, those of other ranks' rows
// among them, and then over the runs; scratch of 8 bytes for each of N rounded up to a power of
// two, and 8 C for each run. A row has the same bits whoever has the others.
void EmbeddingBackward(Context& ctx, const Tensor& tokens, const Tensor& dout,
                       const VocabularySlice& slice, const GradientTarget& dtable);

// The same with all rows of the table.
inline void EmbeddingForward(Context& ctx, const Tensor& tokens, const Tensor& table, Tensor out) {
  EmbeddingForward(ctx, tokens, table, {.first = 0, .vocabulary = table.size(0)}, out);
}
inline void EmbeddingBackward(Context& ctx, const Tensor& tokens, const Tensor& dout,
                              const GradientTarget& dtable) {
  EmbeddingBackward(ctx, tokens, dout, {.first = 0, .vocabulary = dtable.gradient.size(0)}, dtable);
}

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_EMBEDDING_H_
