// Tensors of benchmarks in the memory of any device.
#ifndef PANTHERA_TESTS_BENCH_OPERANDS_H_
#define PANTHERA_TESTS_BENCH_OPERANDS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/base/shape.h"
#include "runtime/device/buffer.h"
#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/math/context.h"

namespace panthera::bench {

// Owns the inputs and outputs of one call of an op, in the memory of the context's device.
class Operands {
 public:
  explicit Operands(Context& ctx) : ctx_(ctx) {}

  // Uniform noise in [-scale, scale): constants would run faster than real values do. A large
  // tensor repeats a random block of a prime number of elements.
  Tensor Noise(const Shape& shape, DType dtype, float scale = 1);
  // Filled with bytes 0xFF, which are NaN in every float type.
  Tensor Poisoned(const Shape& shape, DType dtype);
  Tensor Zeros(const Shape& shape, DType dtype);
  Tensor Tokens(std::span<const int32_t> tokens);
  // A copy of a tensor in CPU memory.
  Tensor CopyOf(const Tensor& host);

  int64_t bytes() const { return bytes_; }

 private:
  Context& ctx_;
  std::vector<Buffer> buffers_;
  int64_t bytes_ = 0;
};

// Uniform integers in [0, end).
std::vector<int32_t> NoiseTokens(int64_t count, int64_t end, uint64_t seed);

// Reads the elements of a tensor of any device, one after the other, in blocks of host memory.
// Blocks the host.
//
// Whether no element has kept the bytes of Operands::Poisoned.
bool IsWritten(Context& ctx, const Tensor& tensor);
// A checksum of all bytes, by which to see whether a tensor has changed.
uint64_t Checksum(Context& ctx, const Tensor& tensor);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_OPERANDS_H_
