// Rows of fp32 or bf16 elements in CPU memory: conversion, addition in fp32, and how loops over
// rows share them among threads. Vectorized, with the same bits on every machine.
#ifndef PANTHERA_RUNTIME_MATH_ROWS_H_
#define PANTHERA_RUNTIME_MATH_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "runtime/base/dtype.h"
#include "runtime/device/tensor.h"

namespace panthera {

// The least number of rows of `width` elements for which another thread pays.
constexpr int64_t RowGrain(int64_t width) {
  constexpr int64_t kElements = 16384;
  return std::max<int64_t>(1, kElements / std::max<int64_t>(1, width));
}

// out[i] = row[i] for i in [0, count). Here and below outputs do not overlap inputs unless said.
void LoadRow(const float* row, int64_t count, float* out);
void LoadRow(const BF16* row, int64_t count, float* out);
// The same for the elements [begin, begin + count) of a tensor, fp32 or bf16.
void LoadRow(const Tensor& tensor, int64_t begin, int64_t count, float* out);

// sum[i] += row[i].
void AddRow(const float* row, int64_t count, float* sum);
void AddRow(const BF16* row, int64_t count, float* sum);
void AddRow(const Tensor& tensor, int64_t begin, int64_t count, float* sum);

// out[i] = row[i], rounded to nearest.
void StoreRow(const float* row, int64_t count, float* out);
void StoreRow(const float* row, int64_t count, BF16* out);

// out[i] = a[i] + b[i], added in fp32 and rounded once. `out` may be `a` or `b`.
void StoreSum(const float* a, const float* b, int64_t count, float* out);
void StoreSum(const BF16* a, const BF16* b, int64_t count, BF16* out);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_MATH_ROWS_H_
