// Elements of floating types as they stand in files, and as fp32.
#ifndef PANTHERA_RUNTIME_CHECKPOINT_FLOAT_ELEMENTS_H_
#define PANTHERA_RUNTIME_CHECKPOINT_FLOAT_ELEMENTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "runtime/base/dtype.h"

namespace panthera {

// Whether files of weights may have elements of this type: fp32, bf16 or fp16.
bool IsWeightType(DType dtype);

// out[i] = element i, exactly. `bytes` are whole elements of a weight type, as many as `out` has.
void DecodeFloats(std::span<const std::byte> bytes, DType dtype, std::span<float> out);

// Element i = in[i], rounded to nearest, ties to even. `bytes` has room for as many elements of a
// weight type as `in` has. Returns the first i where a finite in[i] became infinite, if there is
// one.
std::optional<int64_t> EncodeFloats(std::span<const float> in, DType dtype,
                                    std::span<std::byte> bytes);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_FLOAT_ELEMENTS_H_
