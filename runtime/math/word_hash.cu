#include "runtime/math/word_hash.h"

#include <cstdint>

#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"
#include "runtime/math/cuda_kernels.h"
#include "runtime/math/word_mix.h"

namespace panthera::cuda {
namespace {

// The type of 64 bits that atomicAdd takes.
using Word = unsigned long long;  // NOLINT(google-runtime-int)

constexpr unsigned kThreads = 256;
constexpr int kPackWords = static_cast<int>(kPackBytes / kHashWordBytes);
// Packs that a thread looks at, so that loads overlap and few blocks meet at the one sum.
constexpr int64_t kThreadPacks = 8;

struct alignas(kPackBytes) WordPack {
  Word words[kPackWords];
};

// The word that begins at byte `begin`; bytes from `end` on are zero.
__device__ Word WordOfBytes(const uint8_t* x, int64_t begin, int64_t end) {
  Word word = 0;
  // Rare; unrolled into the loop over packs it would cost registers there.
#pragma unroll 1
  for (int i = 0; i < static_cast<int>(kHashWordBytes) && begin + i < end; ++i) {
    word |= static_cast<Word>(x[begin + i]) << (8 * i);
  }
  return word;
}

// kAligned: x begins where a pack can, so that every whole pack is one load.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    HashWordsKernel(const uint8_t* x, int64_t bytes, int64_t first_word, Word* sum) {
  PANTHERA_SHARED_ARRAY(Word, scratch, kMostWarps);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads * kThreadPacks) + threadIdx.x;
  Word mine = 0;
#pragma unroll
  for (int64_t step = 0; step < kThreadPacks; ++step) {
    const int64_t index = first + step * kThreads;
    const int64_t begin = index * kPackBytes;
    const int64_t word = first_word + index * kPackWords;
    if (kAligned && begin + kPackBytes <= bytes) {
      const WordPack pack = reinterpret_cast<const WordPack*>(x)[index];
#pragma unroll
      for (int i = 0; i < kPackWords; ++i) {
        mine += MixWord(pack.words[i], word + i);
      }
    } else {
      for (int i = 0; i < kPackWords && begin + i * kHashWordBytes < bytes; ++i) {
        mine += MixWord(WordOfBytes(x, begin + i * kHashWordBytes, bytes), word + i);
      }
    }
  }
  const Word total = BlockSum(mine, scratch);
  if (threadIdx.x == 0) {
    atomicAdd(sum, total);
  }
}

}  // namespace

void HashWords(Stream& stream, const Tensor& x, int64_t first_word, Tensor sum) {
  const auto launch = [&](auto kernel) {
    const int64_t packs = CeilDiv(x.bytes(), kPackBytes);
    Launch(stream, {GridOf(CeilDiv(packs, kThreads * kThreadPacks)), dim3(kThreads)}, kernel,
           reinterpret_cast<const uint8_t*>(x.bytes_data()), x.bytes(), first_word,
           reinterpret_cast<Word*>(sum.data<int64_t>()));
  };
  if (reinterpret_cast<uintptr_t>(x.bytes_data()) % kPackBytes == 0) {
    launch(&HashWordsKernel<true>);
  } else {
    launch(&HashWordsKernel<false>);
  }
}

}  // namespace panthera::cuda
