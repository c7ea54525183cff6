#include "runtime/math/word_hash.h"

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstring>

#include "runtime/base/parallel_for.h"
#include "runtime/base/simd.h"
#include "runtime/math/cuda_kernels.h"
#include "runtime/math/word_mix.h"

namespace panthera {
namespace {

static_assert(std::endian::native == std::endian::little);

// The least number of words for which another thread pays: 128 KiB.
constexpr int64_t kGrain = 16384;

// The sum over `count` words of which the first has the number `first_word`.
PANTHERA_SIMD uint64_t SumOfMixed(const std::byte* bytes, int64_t count, int64_t first_word) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    // A tensor of bytes need not begin where a word could.
    uint64_t word;
    std::memcpy(&word, bytes + i * kHashWordBytes, sizeof(word));
    sum += MixWord(word, first_word + i);
  }
  return sum;
}

}  // namespace

void HashWords(Stream& stream, const Tensor& x, int64_t first_word, Tensor sum) {
  CHECK_SHAPE(sum, 1);
  CHECK_EQ(sum.dtype(), DType::kI64);
  CHECK_EQ(x.device(), stream.device());
  CHECK_EQ(sum.device(), stream.device());
  CHECK_GE(first_word, 0);
  if (stream.device().is_meta() || x.elements() == 0) {
    return;
  }
  if (stream.device().is_cuda()) {
    cuda::HashWords(stream, x, first_word, sum);
    return;
  }
  const int64_t whole = x.bytes() / kHashWordBytes;
  const int64_t rest = x.bytes() % kHashWordBytes;
  std::atomic<uint64_t> total = 0;
  ParallelFor(whole, kGrain, [&](int64_t begin, int64_t end) {
    total += SumOfMixed(x.bytes_data() + begin * kHashWordBytes, end - begin, first_word + begin);
  });
  if (rest > 0) {
    uint64_t word = 0;
    std::memcpy(&word, x.bytes_data() + whole * kHashWordBytes, static_cast<size_t>(rest));
    total += MixWord(word, first_word + whole);
  }
  int64_t& hash = sum.data<int64_t>()[0];
  hash = static_cast<int64_t>(static_cast<uint64_t>(hash) + total.load());
}

}  // namespace panthera
