// Which way the elements of a tensor move in a step that goes by a sign, in 2 bits each. Zero stays
// zero: an element whose direction is 0 decays and does not move otherwise, one that rests does
// neither.
#ifndef PANTHERA_OPTIM_DIRECTION_CODES_H_
#define PANTHERA_OPTIM_DIRECTION_CODES_H_

#include <cstdint>

#include "optim/update_rules.h"
#include "runtime/base/host_device.h"

namespace panthera {

// Element i of a row has the bits 2 * (i % 4) and 2 * (i % 4) + 1 of byte i / 4.
inline constexpr int64_t kCodesPerByte = 4;

inline constexpr uint32_t kCodeZero = 0;
inline constexpr uint32_t kCodePlus = 1;
inline constexpr uint32_t kCodeMinus = 2;
inline constexpr uint32_t kCodeRests = 3;
inline constexpr uint8_t kFourRest = 0xFF;

// The code of a direction by its sign; that of NaN is kCodeZero, as its Sign is 0.
PANTHERA_ALWAYS_INLINE uint32_t DirectionCode(float direction) {
  return (direction > 0 ? kCodePlus : kCodeZero) | (direction < 0 ? kCodeMinus : kCodeZero);
}

// The sign that a code other than kCodeRests stands for.
PANTHERA_ALWAYS_INLINE float DirectionOf(uint32_t code) {
  return (code == kCodePlus ? 1.0F : 0.0F) - (code == kCodeMinus ? 1.0F : 0.0F);
}

// Element `place` of the four in a byte.
PANTHERA_ALWAYS_INLINE uint32_t CodeAt(uint32_t four, int64_t place) {
  return four >> (2 * static_cast<uint32_t>(place)) & 3U;
}

// SignStep by a code, with the bits of SignStep by the direction that it was made of.
PANTHERA_ALWAYS_INLINE float StepByCode(float rate, float decay, uint32_t code, float theta) {
  const float moved = SignStep(rate, decay, DirectionOf(code), theta);
  return code == kCodeRests ? theta : moved;
}

// On the CPU, vectorized:

// codes = those of the directions; ceil(count / 4) bytes, and what is left of the last one rests.
void PackDirections(const float* directions, int64_t count, uint8_t* codes);
// The same where all elements rest.
void PackRests(int64_t count, uint8_t* codes);
// Whether all elements rest.
bool AllRest(const uint8_t* codes, int64_t count);
// theta[i] = StepByCode(rate, decay, code of element i, theta[i]).
void StepByCodes(float rate, float decay, const uint8_t* codes, int64_t count, float* theta);

}  // namespace panthera

#endif  // PANTHERA_OPTIM_DIRECTION_CODES_H_
