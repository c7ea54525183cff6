// What loops over rows need to vectorize with the same bits on every machine.
#ifndef PANTHERA_RUNTIME_BASE_SIMD_H_
#define PANTHERA_RUNTIME_BASE_SIMD_H_

#include <algorithm>
#include <bit>
#include <cstdint>

// Compiles a function for several instruction sets and picks one when the program starts. All
// copies give the same bits: arithmetic is written without reassociation and the compiler contracts
// nothing. Not for templates; what the function calls must be inlined to gain.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define PANTHERA_SIMD __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define PANTHERA_SIMD
#endif

// For helpers of such functions, lambdas included.
#define PANTHERA_INLINE __attribute__((always_inline))

// Before a loop whose iterations touch no element of another iteration, although pointers may be
// equal: the compiler need not test for overlap.
#define PANTHERA_INDEPENDENT _Pragma("GCC ivdep")

namespace panthera {

// e^x with a relative error below 2 units in the last place. +inf where e^x exceeds the largest
// float; 0 where e^x < 2^-125.5; NaN for NaN.
//
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r is its Taylor polynomial of degree 7, whose remainder
// r^8 / 8! is below 2^-27. n ln 2 is subtracted in two parts, of which the first product is exact.
PANTHERA_INLINE inline float Exp(float x) {
  constexpr float kLargest = 88.8F;    // e^x is infinite from 88.73 on
  constexpr float kSmallest = -87.3F;  // n is -126
  constexpr float kLog2E = 0x1.715476p+0F;
  constexpr float kLn2High = 0x1.63p-1F;  // 9 bits: exact times any n
  constexpr float kLn2Low = -0x1.bd0106p-13F;
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
  constexpr float kRounder = 0x1.8p+23F;
  float clamped = x > kLargest ? kLargest : x;
  clamped = clamped < kSmallest ? kSmallest : clamped;
  const float shifted = clamped * kLog2E + kRounder;
  const float n = shifted - kRounder;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float tail = 1.0F / 5040;
  tail = tail * r + 1.0F / 720;
  tail = tail * r + 1.0F / 120;
  tail = tail * r + 1.0F / 24;
  tail = tail * r + 1.0F / 6;
  tail = tail * r + 0.5F;
  const float power = 1.0F + (r + r * r * tail);
  // 2^(n-1) from its exponent bits, so that n = 128 needs no infinity; n = -126 gives zero.
  const uint32_t exponent =
      std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRounder) + 126U;
  return power * 2.0F * std::bit_cast<float>(exponent << 23);
}

// Sums of rows have one order on every machine: blocks of kSumBlock terms, in a block kSumLanes
// partial sums (term i goes to lane i mod kSumLanes) that are added pairwise, everything fp32; the
// sums of blocks are added in double. The relative error is at most 68 units round-off times
// sum |term| / |sum|.
inline constexpr int64_t kSumBlock = 1024;
inline constexpr int64_t kSumLanes = 16;

PANTHERA_INLINE inline float AddLanes(float (&lanes)[kSumLanes]) {
  for (int64_t half = kSumLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) {
      lanes[i] += lanes[i + half];
    }
  }
  return lanes[0];
}

// The sum of term(i) for i in [0, count), each called once, in index order within a lane. `term`
// should be a PANTHERA_INLINE lambda; it may also store.
template <typename Term>
PANTHERA_INLINE inline double SumTerms(int64_t count, const Term& term) {
  double total = 0;
  for (int64_t block = 0; block < count; block += kSumBlock) {
    const int64_t end = std::min(block + kSumBlock, count);
    const int64_t whole = block + (end - block) / kSumLanes * kSumLanes;
    float lanes[kSumLanes] = {};
    for (int64_t i = block; i < whole; i += kSumLanes) {
      PANTHERA_INDEPENDENT
      for (int64_t lane = 0; lane < kSumLanes; ++lane) {
        lanes[lane] += term(i + lane);
      }
    }
    for (int64_t i = whole; i < end; ++i) {
      lanes[i - whole] += term(i);
    }
    total += static_cast<double>(AddLanes(lanes));
  }
  return total;
}

PANTHERA_INLINE inline float Larger(float a, float b) { return a > b ? a : b; }

// The largest value(i) for i in [0, count), -infinity if there is none. NaNs are passed over.
template <typename Value>
PANTHERA_INLINE inline float MaxOf(int64_t count, const Value& value) {
  const int64_t whole = count / kSumLanes * kSumLanes;
  float lanes[kSumLanes];
  for (float& lane : lanes) {
    lane = -__builtin_inff();
  }
  for (int64_t i = 0; i < whole; i += kSumLanes) {
    PANTHERA_INDEPENDENT
    for (int64_t lane = 0; lane < kSumLanes; ++lane) {
      lanes[lane] = Larger(value(i + lane), lanes[lane]);
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    const float candidate = value(i);
    lanes[0] = candidate > lanes[0] ? candidate : lanes[0];
  }
  float largest = lanes[0];
  for (const float lane : lanes) {
    largest = lane > largest ? lane : largest;
  }
  return largest;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_SIMD_H_
