#ifndef PANTHERA_MODEL_OPS_CROSS_ENTROPY_H_
#define PANTHERA_MODEL_OPS_CROSS_ENTROPY_H_

#include <cstdint>

#include "model/ops/vocabulary_slice.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

enum class CrossEntropyOutput : uint8_t { kLoss, kLossAndGradient };

// losses[i] = lse_i - logits[i, targets[i]],   lse_i = log(sum_v exp(logits[i, v])), v in [0, V)
//   logits [n, P] float, P >= vocab_size = V   targets [n] kI32 in [0, V)   losses [n] kF32
//
// losses is overwritten. With kLossAndGradient so are the logits:
//
//   logits[i, v] <- gradient_scale * (exp(logits[i, v] - lse_i) - (v == targets[i]))   v <  V
//   logits[i, v] <- 0                                                                  v >= V
//
// The columns from V on are padding and never read. Arithmetic in fp32, sums as in
// runtime/base/simd.h. A logit that is not finite gives a loss that is not finite, except that
// -infinity is a token of probability zero.
void CrossEntropy(Context& ctx, Tensor logits, int64_t vocab_size, const Tensor& targets,
                  CrossEntropyOutput output, float gradient_scale, Tensor losses);

// correct[i] = 1 if targets[i] is the first of the largest among logits[i, 0..V), else 0; also 0 if
// the target's logit is -infinity or NaN, while NaNs of other tokens are passed over.
//   logits and targets as above   correct [n] kI32, overwritten
void TopOne(Context& ctx, const Tensor& logits, int64_t vocab_size, const Tensor& targets,
            Tensor correct);

// The same where ranks share the columns of the logits among them: each turns its own into parts,
// the ranks gather these, and each finishes its own columns from the parts of all.
//
// A rank has the logits of tokens [first, first + V) of `slice`; V may be 0, and first + V is at
// most slice.vocabulary. The slices of all ranks are the whole vocabulary, each token once.

// Numbers that a rank says about a row: its largest logit of tokens smaller than the target, its
// largest of larger ones, the target's logit (-infinity where it has none of these), and the sum of
// exp(logit - the largest of the three) over its tokens but the target.
inline constexpr int64_t kCrossEntropyPart = 4;

// parts[i, :] = these numbers of row i.
//   logits [n, P] float, P >= vocab_size = V   targets [n] kI32 in [0, slice.vocabulary)
//   parts  [n, kCrossEntropyPart] kF64, overwritten
// The columns from V on are padding and do not count. The sum is one of fp32 terms, on a CPU as
// CrossEntropy adds them up.
void CrossEntropyPart(Context& ctx, const Tensor& logits, const VocabularySlice& slice,
                      int64_t vocab_size, const Tensor& targets, Tensor parts);

// losses and, with kLossAndGradient, this rank's logits become what CrossEntropy makes of the whole
// row; with kLoss the logits are not read.
//   parts [R, n, kCrossEntropyPart] kF64: what CrossEntropyPart gave on each of R ranks, by slice
// Parts are added in double, by ascending rank: all ranks get the same bits of losses. With R = 1
// the result has, on a CPU, the bits of CrossEntropy.
void CrossEntropyFromParts(Context& ctx, Tensor logits, const VocabularySlice& slice,
                           int64_t vocab_size, const Tensor& targets, const Tensor& parts,
                           CrossEntropyOutput output, float gradient_scale, Tensor losses);

// correct[i] as TopOne has it of the whole row.
//   parts [R, n, kCrossEntropyPart] as above   correct [n] kI32, overwritten
void TopOneFromParts(Context& ctx, const Tensor& parts, Tensor correct);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_CROSS_ENTROPY_H_
