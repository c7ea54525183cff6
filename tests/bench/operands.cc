#include "tests/bench/operands.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/functional/function_ref.h"

#include "runtime/base/check.h"

namespace panthera::bench {
namespace {

// The period of noise: prime, so that rows of a matrix are not equal to each other.
constexpr int64_t kNoisePeriod = 1048573;
constexpr int64_t kHostBlockBytes = int64_t{32} << 20;

// Numerical Recipes' linear congruential generator; its high bits are random enough to keep the
// arithmetic units busy.
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(static_cast<uint32_t>(seed)) {}
  // 24 bits.
  uint32_t Next() {
    state_ = state_ * 1664525U + 1013904223U;
    return state_ >> 8;
  }

 private:
  uint32_t state_;
};

Tensor Flat(const Tensor& tensor) { return tensor.Reshape({tensor.elements()}); }

// Repeats the first `period` elements of a tensor through all of it, each copy twice as long as the
// one before.
void Repeat(Stream& stream, const Tensor& tensor, int64_t period) {
  const Tensor flat = Flat(tensor);
  for (int64_t filled = period; filled < flat.elements();) {
    const int64_t count = std::min(filled, flat.elements() - filled);
    Copy(stream, flat.Slice(0, count), flat.Slice(filled, filled + count));
    filled += count;
  }
}

// Calls body with each part of the tensor's bytes, in order, as host memory.
void ForEachBlock(Context& ctx, const Tensor& tensor,
                  absl::FunctionRef<void(std::span<const std::byte>)> body) {
  const Tensor flat = Flat(tensor);
  const int64_t block = kHostBlockBytes / SizeOf(tensor.dtype());
  const Buffer memory =
      Buffer::Pinned(ctx.device(), ctx.ledger(), MemoryCategory::kData, "benchmark block",
                     std::min(tensor.bytes(), kHostBlockBytes));
  for (int64_t begin = 0; begin < flat.elements(); begin += block) {
    const Tensor part = flat.Slice(begin, std::min(begin + block, flat.elements()));
    const Tensor host = memory.View(part.shape(), part.dtype());
    Copy(ctx.compute(), part, host);
    ctx.compute().Synchronize();
    body({host.bytes_data(), static_cast<size_t>(host.bytes())});
  }
}

// Whether a word of these bytes has all bits set. Without an early end, so that the loop
// vectorizes.
template <typename Word>
bool IsAnyPoisoned(std::span<const std::byte> bytes) {
  const auto* words = reinterpret_cast<const Word*>(bytes.data());
  const size_t count = bytes.size() / sizeof(Word);
  bool found = false;
  for (size_t i = 0; i < count; ++i) {
    found |= words[i] == static_cast<Word>(~Word{0});
  }
  return found;
}

}  // namespace

Tensor Operands::Zeros(const Shape& shape, DType dtype) {
  const int64_t bytes = shape.elements() * SizeOf(dtype);
  buffers_.emplace_back(ctx_.device(), ctx_.ledger(), MemoryCategory::kData, "operand", bytes);
  bytes_ += bytes;
  return buffers_.back().View(shape, dtype);
}

Tensor Operands::CopyOf(const Tensor& host) {
  Tensor tensor = Zeros(host.shape(), host.dtype());
  Copy(ctx_.compute(), host, tensor);
  ctx_.compute().Synchronize();
  return tensor;
}

Tensor Operands::Noise(const Shape& shape, DType dtype, float scale) {
  Tensor tensor = Zeros(shape, dtype);
  const int64_t period = std::min(shape.elements(), kNoisePeriod);
  const Buffer block({DeviceKind::kCpu, 0}, ctx_.ledger(), MemoryCategory::kData, "noise",
                     period * SizeOf(dtype));
  Generator generator(1 + buffers_.size());
  DispatchFloat(dtype, [&]<typename T>() {
    T* const out = block.View({period}, dtype).data<T>();
    for (int64_t i = 0; i < period; ++i) {
      const float unit = static_cast<float>(generator.Next()) * 0x1p-23F - 1;
      out[i] = static_cast<T>(scale * unit);
    }
  });
  Copy(ctx_.compute(), block.View({period}, dtype), Flat(tensor).Slice(0, period));
  Repeat(ctx_.compute(), tensor, period);
  ctx_.compute().Synchronize();
  return tensor;
}

Tensor Operands::Poisoned(const Shape& shape, DType dtype) {
  Tensor tensor = Zeros(shape, dtype);
  const int64_t period = std::min(shape.elements(), kNoisePeriod);
  const Buffer block({DeviceKind::kCpu, 0}, ctx_.ledger(), MemoryCategory::kData, "poison",
                     period * SizeOf(dtype));
  std::memset(block.data(), 0xFF, static_cast<size_t>(block.bytes()));
  Copy(ctx_.compute(), block.View({period}, dtype), Flat(tensor).Slice(0, period));
  Repeat(ctx_.compute(), tensor, period);
  ctx_.compute().Synchronize();
  return tensor;
}

Tensor Operands::Tokens(std::span<const int32_t> tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  const Buffer block({DeviceKind::kCpu, 0}, ctx_.ledger(), MemoryCategory::kData, "tokens",
                     count * SizeOf(DType::kI32));
  std::copy(tokens.begin(), tokens.end(), block.View({count}, DType::kI32).data<int32_t>());
  return CopyOf(block.View({count}, DType::kI32));
}

std::vector<int32_t> NoiseTokens(int64_t count, int64_t end, uint64_t seed) {
  Generator generator(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>((int64_t{generator.Next()} * end) >> 24);
  }
  return tokens;
}

bool IsWritten(Context& ctx, const Tensor& tensor) {
  bool is_written = true;
  ForEachBlock(ctx, tensor, [&](std::span<const std::byte> block) {
    switch (SizeOf(tensor.dtype())) {
      case sizeof(uint16_t):
        is_written = is_written && !IsAnyPoisoned<uint16_t>(block);
        break;
      case sizeof(uint32_t):
        is_written = is_written && !IsAnyPoisoned<uint32_t>(block);
        break;
      case sizeof(uint64_t):
        is_written = is_written && !IsAnyPoisoned<uint64_t>(block);
        break;
      default:
        CHECK(false) << "no output is of type " << Name(tensor.dtype());
    }
  });
  return is_written;
}

uint64_t Checksum(Context& ctx, const Tensor& tensor) {
  // FNV-1a over words of 8 bytes; blocks but the last are multiples of it.
  uint64_t sum = 14695981039346656037U;
  ForEachBlock(ctx, tensor, [&](std::span<const std::byte> block) {
    for (size_t begin = 0; begin < block.size(); begin += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, block.data() + begin, std::min(sizeof(word), block.size() - begin));
      sum = (sum ^ word) * 1099511628211U;
    }
  });
  return sum;
}

}  // namespace panthera::bench
