#include "runtime/device/tensor.h"

#include <cstdint>

#include <gtest/gtest.h>

namespace panthera {
namespace {

TEST(TensorTest, KnowsItsSizeInElementsAndBytes) {
  BF16 memory[6];
  const Tensor tensor(memory, {2, 3}, DType::kBF16, Device{});
  EXPECT_EQ(tensor.elements(), 6);
  EXPECT_EQ(tensor.bytes(), 12);
  EXPECT_EQ(tensor.size(1), 3);
  EXPECT_EQ(tensor.data<BF16>(), memory);
  EXPECT_EQ(Tensor().elements(), 0);
}

TEST(TensorTest, SliceIsAViewOfRows) {
  float memory[24] = {};
  const Tensor tensor(memory, {4, 2, 3}, DType::kF32, Device{});
  const Tensor rows = tensor.Slice(1, 3);
  EXPECT_EQ(rows.shape(), Shape({2, 2, 3}));
  EXPECT_EQ(rows.dtype(), DType::kF32);
  EXPECT_EQ(rows.data<float>(), memory + 6);
  EXPECT_EQ(tensor.Slice(4, 4).elements(), 0);
}

TEST(TensorTest, ReshapeKeepsMemory) {
  float memory[6] = {};
  const Tensor flat = Tensor(memory, {2, 3}, DType::kF32, Device{}).Reshape({6});
  EXPECT_EQ(flat.shape(), Shape({6}));
  EXPECT_EQ(flat.data<float>(), memory);
}

TEST(TensorTest, MetaViewsHaveNoMemory) {
  const Device meta{DeviceKind::kMeta, 0};
  const Tensor tensor(nullptr, {4, 3}, DType::kF32, meta);
  EXPECT_EQ(tensor.Slice(2, 4).bytes_data(), nullptr);
  EXPECT_EQ(tensor.Slice(2, 4).Reshape({6}).bytes_data(), nullptr);
  EXPECT_EQ(tensor.Slice(2, 4).device(), meta);
}

TEST(TensorDeathTest, RefusesWhatDoesNotFit) {
  float memory[6] = {};
  const Tensor tensor(memory, {2, 3}, DType::kF32, Device{});
  EXPECT_DEATH((void)tensor.data<BF16>(), "fp32 vs. bf16");
  EXPECT_DEATH((void)tensor.Slice(1, 3), "3 vs. 2");
  EXPECT_DEATH((void)tensor.Slice(2, 1), "2 vs. 1");
  EXPECT_DEATH((void)tensor.Slice(-1, 1), "-1 vs. 0");
  EXPECT_DEATH((void)tensor.Reshape({7}), "7 vs. 6.*\\[2, 3\\] to \\[7\\]");
  EXPECT_DEATH(CHECK_SHAPE(tensor, 3, 2), "\\[2, 3\\] vs. \\[3, 2\\]");
}

}  // namespace
}  // namespace panthera
