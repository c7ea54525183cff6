// Counter-based random numbers: the value is a pure function of (key, counter), so every rank and
// device draws the same bits for the same element without any stored state.
//
// Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3"
// (SC 2011).
#ifndef PANTHERA_RUNTIME_BASE_PHILOX_H_
#define PANTHERA_RUNTIME_BASE_PHILOX_H_

#include <array>
#include <cstdint>

#include "runtime/base/host_device.h"

namespace panthera {

struct Philox {
  uint32_t value[4];
};

// Ten rounds on the 128-bit counter (low word first) under a 64-bit key.
PANTHERA_HOST_DEVICE inline Philox Philox4x32(uint64_t key, uint64_t counter_low,
                                              uint64_t counter_high) {
  uint32_t c[4] = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                   static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53U} * c[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57U} * c[2];
    const uint32_t next0 = static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ k0;
    const uint32_t next2 = static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ k1;
    c[1] = static_cast<uint32_t>(product1);
    c[3] = static_cast<uint32_t>(product0);
    c[0] = next0;
    c[2] = next2;
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return Philox{{c[0], c[1], c[2], c[3]}};
}

// A float in [0, 1) from the upper 24 bits.
PANTHERA_HOST_DEVICE inline float UnitFloat(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24F;
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_PHILOX_H_
