#include "tests/runtime/checkpoint/test_tensors.h"

#include <cstring>

#include <gtest/gtest.h>

#include "runtime/base/philox.h"

namespace panthera::testing {
namespace {

ElementRuns RunsOf(const Shape& shape, int rank, int size, Split split) {
  const auto part = [rank, size](int64_t n, int offset) { return n * (rank + offset) / size; };
  if (split == Split::kColumns && shape.rank() == 2) {
    const int64_t begin = part(shape[1], 0);
    return {begin, part(shape[1], 1) - begin, shape[0] > 1 ? shape[1] : 0, shape[0]};
  }
  const int64_t begin = part(shape.elements(), 0);
  return ElementRuns::Contiguous(begin, part(shape.elements(), 1) - begin);
}

// The places in a tensor of a piece's elements, in the piece's order.
std::vector<int64_t> Places(const ElementRuns& runs) {
  std::vector<int64_t> places;
  for (int64_t i = 0; i < runs.count; ++i) {
    for (int64_t j = 0; j < runs.run; ++j) {
      places.push_back(runs.begin + i * runs.stride + j);
    }
  }
  return places;
}

}  // namespace

LogicalTensor MakeTensor(const std::string& name, const Shape& shape, DType dtype, uint64_t seed) {
  LogicalTensor tensor{{name, dtype, shape}, {}};
  tensor.values.resize(static_cast<size_t>(tensor.description.bytes()));
  uint32_t bits = 0;
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    if (i % 4 == 0) {
      bits = Philox4x32(seed, i / 16, 0).value[i / 4 % 4];
    }
    // Without the highest exponent bit in any byte no pattern is an infinity or a NaN.
    tensor.values[i] = static_cast<std::byte>(bits & 0xBFU);
    bits >>= 8;
  }
  return tensor;
}

std::vector<LogicalTensor> ExampleTensors(uint64_t seed) {
  return {MakeTensor("model.embed_tokens.weight", {1031, 1024}, DType::kF32, seed),
          MakeTensor("model.layers.10.up.weight", {37, 24}, DType::kBF16, seed + 1),
          MakeTensor("model.layers.2.up.weight", {24, 37}, DType::kBF16, seed + 2),
          MakeTensor("model.norm.weight", {24}, DType::kF32, seed + 3),
          MakeTensor("bits", {13}, DType::kU8, seed + 4),
          MakeTensor("scalar", {}, DType::kF32, seed + 5)};
}

RankPieces::RankPieces(const std::vector<LogicalTensor>& tensors, int rank, int size, Split split,
                       Fill fill) {
  for (const LogicalTensor& tensor : tensors) {
    const TensorDescription& description = tensor.description;
    const ElementRuns runs = RunsOf(description.shape, rank, size, split);
    const auto element_bytes = static_cast<size_t>(SizeOf(description.dtype));
    auto memory = std::make_unique<std::vector<std::byte>>(static_cast<size_t>(runs.elements()) *
                                                           element_bytes);
    if (fill == Fill::kValues) {
      std::byte* to = memory->data();
      for (const int64_t place : Places(runs)) {
        std::memcpy(to, tensor.values.data() + static_cast<size_t>(place) * element_bytes,
                    element_bytes);
        to += element_bytes;
      }
    }
    pieces_.push_back({description.name, description.shape, runs,
                       Tensor(memory->data(), {runs.elements()}, description.dtype, Device{})});
    memory_.push_back(std::move(memory));
  }
}

void RankPieces::ExpectValues(const std::vector<LogicalTensor>& tensors) const {
  ASSERT_EQ(pieces_.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto element_bytes = static_cast<size_t>(SizeOf(tensors[i].description.dtype));
    const std::byte* held = memory_[i]->data();
    int64_t different = 0;
    for (const int64_t place : Places(pieces_[i].runs)) {
      const std::byte* wanted =
          tensors[i].values.data() + static_cast<size_t>(place) * element_bytes;
      different += std::memcmp(held, wanted, element_bytes) != 0 ? 1 : 0;
      held += element_bytes;
    }
    EXPECT_EQ(different, 0) << "elements of " << tensors[i].description.name;
  }
}

}  // namespace panthera::testing
