#ifndef PANTHERA_RUNTIME_PARAMS_WEIGHT_SHARD_H_
#define PANTHERA_RUNTIME_PARAMS_WEIGHT_SHARD_H_

#include <cstdint>
#include <optional>

#include "runtime/base/fields.h"
#include "runtime/device/tensor.h"
#include "runtime/params/element_map.h"

namespace panthera {

// How a parameter is kept. The first part of each name is what layers read.
enum class WeightStorage : uint8_t {
  kFp32,          // fp32
  kBf16Plus8,     // bf16 (nearest) and a signed 8-bit remainder: the upper 24 bits of an fp32
  kBf16,          // bf16 alone, rounded stochastically at each update
  kBf16PlusFp32,  // bf16 and an fp32 master copy, of which each rank holds its shard
};
template <>
struct EnumNames<WeightStorage> {
  static constexpr const char* kNames[] = {"fp32", "bf16+8", "bf16", "bf16+fp32"};
};

// Where the low bits of kBf16Plus8 are kept.
enum class LowBits : uint8_t {
  kSharded,     // each rank has those of its shard
  kReplicated,  // each rank has all, so that it can repeat what others do to their shards
};

// The dtype of the values that layers read.
constexpr DType ValueDType(WeightStorage storage) {
  return storage == WeightStorage::kFp32 ? DType::kF32 : DType::kBF16;
}

// A rank's part of a flat group with all the precision that is stored. Views.
//
// With kBf16Plus8 the upper 24 bits of the fp32 pattern, as an integer, are 256 * bf16 + remainder
// with -128 <= remainder <= 127, so every value that is not a NaN comes back bit for bit. That
// makes the bf16 part the nearest one with ties away from zero: rounding ties to even would need a
// remainder of +128. A master copy split into bf16 and an 8-bit correction is also what Gonzalez
// Ortiz et al. use ("FlashOptim", arXiv:2602.23349, 2026), there with a scaled correction.
struct WeightShard {
  WeightStorage storage = WeightStorage::kFp32;
  Tensor values;                    // [n], ValueDType(storage)
  std::optional<Tensor> remainder;  // [n] kU8 holding int8, with kBf16Plus8
  std::optional<Tensor> master;     // [n] fp32, with kBf16PlusFp32
};

// Where the random bits of stochastic rounding come from, the same on every rank and device:
// element i of a logical tensor draws word i % 4 of Philox4x32(key, i / 4, stream), and uses its
// lowest 16 bits (kBf16) or 8 bits (kBf16Plus8). Stochastic rounding adds them to the fp32 pattern,
// below the bits that are kept, and truncates: the expected value is the value (except beyond the
// largest finite one, where it becomes infinite). NaNs lose their payload.
struct RoundingBits {
  uint64_t key = 0;
  uint64_t stream = 0;
  // From the parameter's elements to those of its logical tensor.
  ElementMap logical = {};
};

// out[i] = the stored value of element begin + i of the shard, exactly. CPU memory only.
void ReadWeights(const WeightShard& shard, int64_t begin, int64_t count, float* out);

// Stores in[i] as element begin + i of the shard. kFp32 and kBf16PlusFp32 keep the value exactly
// (and its bf16 rounding to nearest for the layers). kBf16 and kBf16Plus8 round stochastically to 8
// and 16 bits of significand: element begin + i is element param_begin + i of what this rank has of
// the parameter, and has the random bits of the logical element that it is. CPU memory only.
void WriteWeights(const WeightShard& shard, int64_t begin, int64_t count, const float* in,
                  int64_t param_begin, const RoundingBits& bits);

// As WriteWeights but rounding to nearest; for initial values.
void WriteWeightsToNearest(const WeightShard& shard, int64_t begin, int64_t count, const float* in);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_PARAMS_WEIGHT_SHARD_H_
