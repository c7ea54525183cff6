#include "optim/direction_codes.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "runtime/base/shape.h"
#include "runtime/base/simd.h"

namespace panthera {
namespace {

// Codes are unpacked for this many elements at a time.
constexpr int64_t kChunk = 1024;
// Stands for kCodeRests among unpacked directions.
constexpr float kRests = 2;

using Four = std::array<float, kCodesPerByte>;

constexpr std::array<Four, 256> MakeDirections() {
  constexpr Four kDirections = {0, 1, -1, kRests};
  std::array<Four, 256> table{};
  for (uint32_t four = 0; four < 256; ++four) {
    for (uint32_t place = 0; place < kCodesPerByte; ++place) {
      table[four][place] = kDirections[four >> (2 * place) & 3U];
    }
  }
  return table;
}

// The directions of the four codes in each byte: a look-up is several times faster than shifts.
constexpr std::array<Four, 256> kDirectionsOf = MakeDirections();

PANTHERA_SIMD void PackWhole(const float* directions, int64_t bytes, uint8_t* codes) {
  for (int64_t i = 0; i < bytes; ++i) {
    const float* four = directions + i * kCodesPerByte;
    codes[i] = static_cast<uint8_t>(DirectionCode(four[0]) | DirectionCode(four[1]) << 2U |
                                    DirectionCode(four[2]) << 4U | DirectionCode(four[3]) << 6U);
  }
}

PANTHERA_SIMD void Step(float rate, float decay, const float* directions, int64_t count,
                        float* theta) {
  for (int64_t i = 0; i < count; ++i) {
    const float moved = SignStep(rate, decay, directions[i], theta[i]);
    theta[i] = directions[i] == kRests ? theta[i] : moved;
  }
}

}  // namespace

void PackDirections(const float* directions, int64_t count, uint8_t* codes) {
  const int64_t whole = count / kCodesPerByte;
  PackWhole(directions, whole, codes);
  const int64_t rest = count % kCodesPerByte;
  if (rest == 0) {
    return;
  }
  uint32_t last = kFourRest;
  for (int64_t i = 0; i < rest; ++i) {
    const uint32_t shift = 2 * static_cast<uint32_t>(i);
    const uint32_t code = DirectionCode(directions[whole * kCodesPerByte + i]);
    last = (last & ~(3U << shift)) | code << shift;
  }
  codes[whole] = static_cast<uint8_t>(last);
}

void PackRests(int64_t count, uint8_t* codes) {
  std::fill_n(codes, CeilDiv(count, kCodesPerByte), kFourRest);
}

bool AllRest(const uint8_t* codes, int64_t count) {
  return std::all_of(codes, codes + CeilDiv(count, kCodesPerByte),
                     [](uint8_t four) { return four == kFourRest; });
}

void StepByCodes(float rate, float decay, const uint8_t* codes, int64_t count, float* theta) {
  std::array<float, kChunk> directions;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t chunk = std::min(kChunk, count - begin);
    const uint8_t* bytes = codes + begin / kCodesPerByte;
    for (int64_t i = 0; i < CeilDiv(chunk, kCodesPerByte); ++i) {
      std::memcpy(directions.data() + i * kCodesPerByte, kDirectionsOf[bytes[i]].data(),
                  sizeof(Four));
    }
    Step(rate, decay, directions.data(), chunk, theta + begin);
  }
}

}  // namespace panthera
