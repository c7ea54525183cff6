#include "runtime/math/gemm_tuning.h"

#include <algorithm>
#include <cstdint>

#include "runtime/math/noise.h"

namespace panthera {
namespace {

// From a matrix's first byte to its last.
int64_t ExtentBytes(const Matrix& x) {
  if (x.batch == 0 || x.rows == 0 || x.columns == 0) {
    return 0;
  }
  return ((x.batch - 1) * x.batch_stride + (x.rows - 1) * x.row_stride + x.columns) *
         SizeOf(x.dtype);
}

Matrix At(Matrix matrix, const Tensor& memory) {
  matrix.data = memory.bytes_data();
  matrix.device = memory.device();
  return matrix;
}

}  // namespace

GemmAlgorithms TuneProducts(Context& ctx, std::span<const Product> products) {
  if (!ctx.target().is_cuda()) {
    return {};
  }
  int64_t a_bytes = 0;
  int64_t b_bytes = 0;
  int64_t c_bytes = 0;
  int64_t scratch_bytes = 0;
  for (const Product& product : products) {
    a_bytes = std::max(a_bytes, ExtentBytes(product.a));
    b_bytes = std::max(b_bytes, ExtentBytes(product.b));
    c_bytes = std::max(c_bytes, ExtentBytes(product.c));
    scratch_bytes = std::max(scratch_bytes, GemmScratchBytes(ctx, product));
  }
  const Arena::Scope scope(ctx.arena());
  const Tensor a = ctx.arena().Allocate({a_bytes}, DType::kU8, "tuning operand a");
  const Tensor b = ctx.arena().Allocate({b_bytes}, DType::kU8, "tuning operand b");
  const Tensor c = ctx.arena().Allocate({c_bytes}, DType::kU8, "tuning result");
  const Tensor scratch = ctx.arena().Allocate({scratch_bytes}, DType::kU8, "tuning scratch");
  if (ctx.device().is_meta()) {
    return {};
  }
  for (const Tensor& memory : {a, b, c}) {
    // Two numbers of bf16 are one such number in fp32.
    FillWithNoise(ctx.compute(), {memory.bytes_data(),
                                  {memory.bytes() / SizeOf(DType::kBF16)},
                                  DType::kBF16,
                                  memory.device()});
  }
  GemmAlgorithms algorithms(ctx.gemm().library());
  for (const Product& form : products) {
    if (ExtentBytes(form.c) == 0 || ExtentBytes(form.a) == 0) {
      continue;
    }
    Product product = form;
    product.a = At(form.a, a);
    product.b = At(form.b, b);
    product.c = At(form.c, c);
    algorithms.Set(form, ctx.gemm().FastestAlgorithm(ctx.compute(), product, scratch));
  }
  return algorithms;
}

}  // namespace panthera
