#ifndef PANTHERA_MODEL_OPS_HEADS_H_
#define PANTHERA_MODEL_OPS_HEADS_H_

#include <cstdint>

#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera {

// The heads of one kind (queries, say) where they lie: `heads` neighbouring runs of `width` columns
// in a matrix that has one row per token. Element (b, t, h, d) stands in row b * tokens + t and
// column first_column + h * width + d. So queries, keys and values need not be copied out of the
// product of a fused projection, nor their gradients into one.
struct Heads {
  // All of x [B, T, heads, width].
  Heads(const Tensor& x);  // NOLINT(google-explicit-constructor)
  // Columns of matrix [batch * T, columns], from `first_column` on.
  static Heads Columns(const Tensor& matrix, int64_t batch, int64_t first_column, int64_t heads,
                       int64_t width);

  DType dtype() const { return matrix.dtype(); }
  int64_t row_stride() const { return matrix.size(1); }
  // Elements from the matrix's first to (b, t, h, 0).
  int64_t offset(int64_t b, int64_t t, int64_t h) const {
    return (b * tokens + t) * row_stride() + first_column + h * width;
  }
  template <typename T>
  T* at(int64_t b, int64_t t, int64_t h) const {
    return matrix.data<T>() + offset(b, t, h);
  }

  Tensor matrix;  // [batch * tokens, row_stride]
  int64_t batch;
  int64_t tokens;
  int64_t heads;
  int64_t width;
  int64_t first_column;

 private:
  Heads() = default;
};

// out = x, for heads of the same sizes and type. out is overwritten and does not overlap x.
void CopyHeads(Context& ctx, const Heads& x, Heads out);

// Aborts unless x has these sizes.
void CheckHeads(const Heads& x, int64_t batch, int64_t tokens, int64_t heads, int64_t width);

}  // namespace panthera

#endif  // PANTHERA_MODEL_OPS_HEADS_H_
