#ifndef PANTHERA_RUNTIME_MATH_WORD_HASH_H_
#define PANTHERA_RUNTIME_MATH_WORD_HASH_H_

#include <cstdint>

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"

namespace panthera {

// The words of 8 bytes that HashWords sees in a tensor.
inline constexpr int64_t kHashWordBytes = 8;

// sum[0] += MixWord(word_0, first_word) + MixWord(word_1, first_word + 1) + ..., modulo 2^64, over
// the bytes of x as little-endian words of 8 bytes, the last one filled up with zero bytes. The
// same bits on every device, for every number of threads and in any order; a tensor may be hashed
// in parts that begin at a multiple of 8 bytes, part by part at its first word.
//
// One changed word always changes the sum. Any other difference between two tensors of as many
// bytes goes unseen once in 2^64. Not for data that somebody chooses with intent.
//
//   x  any type and shape;  sum  [1] kI64, holding an unsigned number
//
// Enqueued on `stream`. Computes nothing on kMeta.
void HashWords(Stream& stream, const Tensor& x, int64_t first_word, Tensor sum);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_WORD_HASH_H_
