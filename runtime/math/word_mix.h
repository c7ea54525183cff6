#ifndef PANTHERA_RUNTIME_MATH_WORD_MIX_H_
#define PANTHERA_RUNTIME_MATH_WORD_MIX_H_

#include <cstdint>

#include "runtime/base/host_device.h"

namespace panthera {

// What word number `index` with the value `word` adds to a hash: the finalizer of SplitMix64
// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, with the
// constants of Stafford's variant 13), on a state that the index moves along its sequence. For each
// index it is a bijection, so that two words never add the same.
PANTHERA_ALWAYS_INLINE uint64_t MixWord(uint64_t word, int64_t index) {
  uint64_t z = word + (static_cast<uint64_t>(index) + 1) * 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_WORD_MIX_H_
