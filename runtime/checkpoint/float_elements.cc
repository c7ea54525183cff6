#include "runtime/checkpoint/float_elements.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace panthera {
namespace {

// Calls function.operator()<T>() for the type that `dtype` names.
template <typename Function>
decltype(auto) DispatchWeightType(DType dtype, Function&& function) {
  if (dtype == DType::kF16) {
    return function.template operator()<F16>();
  }
  return DispatchFloat(dtype, std::forward<Function>(function));
}

}  // namespace

bool IsWeightType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

void DecodeFloats(std::span<const std::byte> bytes, DType dtype, std::span<float> out) {
  CHECK_EQ(bytes.size(), out.size() * static_cast<size_t>(SizeOf(dtype)));
  DispatchWeightType(dtype, [&]<typename T>() {
    for (size_t i = 0; i < out.size(); ++i) {
      T element;
      std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
      out[i] = static_cast<float>(element);
    }
  });
}

std::optional<int64_t> EncodeFloats(std::span<const float> in, DType dtype,
                                    std::span<std::byte> bytes) {
  CHECK_EQ(bytes.size(), in.size() * static_cast<size_t>(SizeOf(dtype)));
  std::optional<int64_t> overflow;
  DispatchWeightType(dtype, [&]<typename T>() {
    for (size_t i = in.size(); i-- > 0;) {
      const T element(in[i]);
      std::memcpy(bytes.data() + i * sizeof(T), &element, sizeof(T));
      if (std::isinf(static_cast<float>(element)) && std::isfinite(in[i])) {
        overflow = static_cast<int64_t>(i);
      }
    }
  });
  return overflow;
}

}  // namespace panthera
