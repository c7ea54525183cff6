// Element types of tensors, and the 16-bit floats.
#ifndef PANTHERA_RUNTIME_BASE_DTYPE_H_
#define PANTHERA_RUNTIME_BASE_DTYPE_H_

#include <bit>
#include <cstdint>
#include <ostream>

#include "runtime/base/check.h"
#include "runtime/base/host_device.h"

namespace panthera {

// kF16 occurs in files alone: nothing computes with it.
enum class DType : uint8_t { kF32, kBF16, kF16, kF64, kI64, kI32, kU8 };

// bfloat16: the upper half of an IEEE binary32. Conversion from float rounds to nearest, ties to
// even; every NaN becomes a quiet NaN.
struct BF16 {
  uint16_t bits;

  BF16() = default;
  PANTHERA_HOST_DEVICE explicit BF16(float value) : bits(Round(value)) {}
  PANTHERA_HOST_DEVICE explicit operator float() const {
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }
  friend bool operator==(BF16 a, BF16 b) = default;

 private:
  PANTHERA_HOST_DEVICE static uint16_t Round(float value) {
    const uint32_t pattern = std::bit_cast<uint32_t>(value);
    // Written without branches so that loops over rows vectorize.
    const uint32_t rounded = (pattern + 0x7FFFU + ((pattern >> 16) & 1U)) >> 16;
    const uint32_t quiet_nan = (pattern >> 16) | 0x40U;
    return static_cast<uint16_t>((pattern & 0x7FFFFFFFU) > 0x7F800000U ? quiet_nan : rounded);
  }
};

// IEEE binary16. Conversion from float rounds to nearest, ties to even; what rounds to 2^16 or more
// becomes infinite, and every NaN a quiet NaN. Conversion to float is exact.
struct F16 {
  uint16_t bits;

  F16() = default;
  explicit F16(float value);
  explicit operator float() const;
  friend bool operator==(F16 a, F16 b) = default;
};

int64_t SizeOf(DType dtype);
const char* Name(DType dtype);
inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << Name(dtype); }

// The unit round-off 2^-p of a floating type: the largest relative error of one rounding.
double UnitRoundoff(DType dtype);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<F16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};

// Calls function.operator()<float>() or <BF16>(), whichever `dtype` names.
template <typename Function>
decltype(auto) DispatchFloat(DType dtype, Function&& function) {
  if (dtype == DType::kBF16) {
    return function.template operator()<BF16>();
  }
  CHECK_EQ(dtype, DType::kF32) << "a float type was expected";
  return function.template operator()<float>();
}

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_DTYPE_H_
