#include "runtime/base/dtype.h"

namespace panthera {
namespace {

// The patterns of some floats: infinity, the least that rounds to 2^16, and 2^-14, the least that
// binary16 has with all its digits.
constexpr uint32_t kInfinity = 0x7F800000;
constexpr uint32_t kLeastOverflow = 0x477FF000;
constexpr uint32_t kLeastNormal = 0x38800000;
// By this much a float's exponent is larger than that of the same binary16, and its fraction
// longer.
constexpr uint32_t kExponentShift = 127 - 15;
constexpr int kFractionShift = 23 - 10;

// `pattern` without its `dropped` lowest bits, rounded to nearest, ties to even.
constexpr uint32_t DropBits(uint32_t pattern, int dropped) {
  const uint32_t below_half = (uint32_t{1} << (dropped - 1)) - 1;
  return (pattern + below_half + ((pattern >> dropped) & 1)) >> dropped;
}

// The bits of a binary16 without its sign, from the pattern of a float without its sign.
uint32_t HalfPattern(uint32_t pattern) {
  if (pattern > kInfinity) {
    return 0x7E00 | ((pattern >> kFractionShift) & 0x3FF);
  }
  if (pattern >= kLeastOverflow) {
    return 0x7C00;
  }
  if (pattern >= kLeastNormal) {
    return DropBits(pattern - (kExponentShift << 23), kFractionShift);
  }
  // A multiple of 2^-24: the fraction with its leading one, which counts in 2^(exponent - 150).
  const uint32_t exponent = pattern >> 23;
  const uint32_t fraction = (pattern & 0x7FFFFF) | 0x800000;
  const int dropped = 126 - static_cast<int>(exponent);
  return dropped > 24 ? 0 : DropBits(fraction, dropped);
}

}  // namespace

F16::F16(float value) {
  const auto pattern = std::bit_cast<uint32_t>(value);
  bits = static_cast<uint16_t>(HalfPattern(pattern & 0x7FFFFFFF) | ((pattern >> 16) & 0x8000));
}

F16::operator float() const {
  const uint32_t sign = uint32_t{bits & 0x8000U} << 16;
  const uint32_t exponent = (bits >> 10) & 0x1F;
  const uint32_t fraction = bits & 0x3FF;
  if (exponent == 0) {
    const float size = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | sign);
  }
  const uint32_t wide = exponent == 0x1F ? 0xFF : exponent + kExponentShift;
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << kFractionShift));
}

int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kU8:
      return 1;
  }
  CHECK(false) << "unknown dtype " << static_cast<int>(dtype);
  return 0;
}

const char* Name(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "fp64";
    case DType::kF32:
      return "fp32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "fp16";
    case DType::kI64:
      return "int64";
    case DType::kI32:
      return "int32";
    case DType::kU8:
      return "uint8";
  }
  return "unknown";
}

double UnitRoundoff(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kF16:
      return 0x1p-11;
    case DType::kI64:
    case DType::kI32:
    case DType::kU8:
      break;
  }
  CHECK(false) << Name(dtype) << " is not a floating type";
  return 0;
}

}  // namespace panthera
