#include "runtime/math/rows.h"

#include "runtime/base/check.h"
#include "runtime/base/simd.h"

namespace panthera {
namespace {

template <typename T>
PANTHERA_INLINE inline void AddTo(const T* row, int64_t count, float* sum) {
  PANTHERA_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    sum[i] += static_cast<float>(row[i]);
  }
}

template <typename T>
PANTHERA_INLINE inline void SumOf(const T* a, const T* b, int64_t count, T* out) {
  PANTHERA_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<T>(static_cast<float>(a[i]) + static_cast<float>(b[i]));
  }
}

// Calls function(pointer to element begin) with the tensor's type.
template <typename Function>
void AtElement(const Tensor& tensor, int64_t begin, int64_t count, const Function& function) {
  CHECK(tensor.device().is_cpu()) << tensor.device();
  CHECK_GE(begin, 0);
  CHECK_LE(begin + count, tensor.elements());
  DispatchFloat(tensor.dtype(), [&]<typename T>() { function(tensor.data<T>() + begin); });
}

}  // namespace

void LoadRow(const float* row, int64_t count, float* out) { std::copy_n(row, count, out); }

PANTHERA_SIMD void LoadRow(const BF16* row, int64_t count, float* out) {
  PANTHERA_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(row[i]);
  }
}

void LoadRow(const Tensor& tensor, int64_t begin, int64_t count, float* out) {
  AtElement(tensor, begin, count, [&](const auto* row) { LoadRow(row, count, out); });
}

PANTHERA_SIMD void AddRow(const float* row, int64_t count, float* sum) { AddTo(row, count, sum); }
PANTHERA_SIMD void AddRow(const BF16* row, int64_t count, float* sum) { AddTo(row, count, sum); }

void AddRow(const Tensor& tensor, int64_t begin, int64_t count, float* sum) {
  AtElement(tensor, begin, count, [&](const auto* row) { AddRow(row, count, sum); });
}

void StoreRow(const float* row, int64_t count, float* out) { std::copy_n(row, count, out); }

PANTHERA_SIMD void StoreRow(const float* row, int64_t count, BF16* out) {
  PANTHERA_INDEPENDENT
  for (int64_t i = 0; i < count; ++i) {
    out[i] = BF16(row[i]);
  }
}

PANTHERA_SIMD void StoreSum(const float* a, const float* b, int64_t count, float* out) {
  SumOf(a, b, count, out);
}
PANTHERA_SIMD void StoreSum(const BF16* a, const BF16* b, int64_t count, BF16* out) {
  SumOf(a, b, count, out);
}

}  // namespace panthera
