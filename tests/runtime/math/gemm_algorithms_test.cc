#include "runtime/math/gemm_algorithms.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;
using testing::MetaTensor;

Product ProductOf(int64_t m, int64_t n, int64_t k, Transpose transpose_b = Transpose::kNo,
                  Accumulate accumulate = Accumulate::kOverwrite, DType dtype = DType::kBF16) {
  const bool transposed = transpose_b == Transpose::kYes;
  return {Transpose::kNo, MetaTensor({m, k}, dtype),
          transpose_b,    MetaTensor(transposed ? Shape{n, k} : Shape{k, n}, dtype),
          accumulate,     MetaTensor({m, n}, dtype)};
}

GemmAlgorithms SomeAlgorithms() {
  GemmAlgorithms algorithms({.gpu = "NVIDIA H200", .version = 130100});
  algorithms.Set(ProductOf(8, 16, 24), {1, 2, 3, 4, 5, 6, 7, 0xFEDCBA9876543210U});
  algorithms.Set(ProductOf(8, 16, 24, Transpose::kYes), {11});
  algorithms.Set(ProductOf(8, 16, 24, Transpose::kNo, Accumulate::kAdd), {12});
  algorithms.Set(ProductOf(8, 16, 24, Transpose::kNo, Accumulate::kOverwrite, DType::kF32), {13});
  return algorithms;
}

TEST(GemmAlgorithmsTest, EveryFormHasAnAlgorithmOfItsOwn) {
  const GemmAlgorithms algorithms = SomeAlgorithms();
  EXPECT_EQ(algorithms.size(), 4);
  EXPECT_EQ(algorithms.Find(ProductOf(8, 16, 24))->at(7), 0xFEDCBA9876543210U);
  EXPECT_EQ(algorithms.Find(ProductOf(8, 16, 24, Transpose::kYes))->at(0), 11U);
  EXPECT_FALSE(algorithms.Find(ProductOf(8, 16, 25)).has_value());
  EXPECT_FALSE(algorithms.Find(ProductOf(8, 24, 16)).has_value());
}

TEST(GemmAlgorithmsTest, FormsTellStridesBatchesAndAlignmentApart) {
  const Tensor memory = MetaTensor({4096}, DType::kBF16);
  const Matrix b = MetaTensor({24, 16}, DType::kBF16);
  const Matrix c = MetaTensor({8, 16}, DType::kBF16);
  const auto form = [&](const Matrix& a) {
    return DescribeForm({Transpose::kNo, a, Transpose::kNo, b, Accumulate::kOverwrite, c});
  };
  const std::string dense = form(Matrix::Part(memory, 0, 8, 24, 24));
  EXPECT_EQ(dense, "bf16 8x16/16@16 = bf16 8x24/24@16 * bf16 24x16/16@16");
  EXPECT_NE(form(Matrix::Part(memory, 0, 8, 24, 32)), dense);
  EXPECT_NE(form(Matrix::Batch(memory, 0, 2, 512, 8, 24, 24)), dense);
  // Rows of 25 elements begin at even addresses only.
  EXPECT_THAT(form(Matrix::Part(memory, 0, 8, 24, 25)), HasSubstr("/25@2 "));
}

TEST(GemmAlgorithmsTest, AlignmentIsThatOfAddressAndStridesUpToTheWidestAccess) {
  alignas(64) static BF16 memory[256];
  const Tensor tensor(memory, {256}, DType::kBF16, Device{});
  EXPECT_EQ(GemmAlignment(Matrix::Part(tensor, 0, 2, 32, 32)), 16);
  EXPECT_EQ(GemmAlignment(Matrix::Part(tensor, 8, 2, 32, 32)), 16);
  EXPECT_EQ(GemmAlignment(Matrix::Part(tensor, 4, 2, 32, 32)), 8);
  EXPECT_EQ(GemmAlignment(Matrix::Part(tensor, 0, 2, 30, 30)), 4);
  EXPECT_EQ(GemmAlignment(Matrix::Batch(tensor, 0, 2, 65, 2, 32, 32)), 2);
  // The stride of a single matrix to a next one does not matter.
  EXPECT_EQ(GemmAlignment(Matrix::Batch(tensor, 0, 1, 65, 2, 32, 32)), 16);
}

TEST(GemmAlgorithmsTest, WhatIsWrittenIsRead) {
  for (const GemmAlgorithms& algorithms : {GemmAlgorithms(), SomeAlgorithms()}) {
    const auto read = ParseGemmAlgorithms(GemmAlgorithmsJson(algorithms));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, algorithms);
  }
}

TEST(GemmAlgorithmsTest, TheFileIsPinned) {
  GemmAlgorithms algorithms({.gpu = "NVIDIA H200", .version = 130100});
  algorithms.Set(ProductOf(8, 16, 24), {0x2A});
  EXPECT_EQ(GemmAlgorithmsJson(algorithms),
            "{\n"
            " \"format\": \"panthera-gemm-algorithms\",\n"
            " \"version\": 1,\n"
            " \"gpu\": \"NVIDIA H200\",\n"
            " \"cublaslt\": 130100,\n"
            " \"algorithms\": {\n"
            "  \"bf16 8x16/16@16 = bf16 8x24/24@16 * bf16 24x16/16@16\": "
            "\"000000000000002a" +
                std::string(112, '0') +
                "\"\n"
                " }\n"
                "}\n");
}

std::string ErrorOf(const std::string& text) {
  const auto read = ParseGemmAlgorithms(text);
  return read.ok() ? "" : std::string(read.status().message());
}

std::string Replaced(const std::string& from, const std::string& to) {
  std::string text = GemmAlgorithmsJson(SomeAlgorithms());
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(GemmAlgorithmsTest, ADamagedFileIsNamedInOneLine) {
  const std::string text = GemmAlgorithmsJson(SomeAlgorithms());
  const std::string damaged = "it is not the JSON that was written: the file was damaged";
  EXPECT_EQ(ErrorOf(""), damaged);
  EXPECT_EQ(ErrorOf(text.substr(0, text.size() / 2)), damaged);
  EXPECT_EQ(ErrorOf("[]"), damaged);
  EXPECT_EQ(ErrorOf(Replaced("130100", "\"130100\"")), damaged);
  EXPECT_EQ(ErrorOf(Replaced("130100", "1e300")), damaged);
  EXPECT_EQ(ErrorOf(Replaced("\"algorithms\"", "\"others\"")), damaged);
  EXPECT_EQ(ErrorOf("{\"format\": \"panthera-checkpoint\"}"),
            "it is not a file of GEMM algorithms");
  EXPECT_EQ(ErrorOf(Replaced("\"version\": 1", "\"version\": 2")),
            "it has version 2 of the format, this program reads 1");
  const std::string product = "bf16 8x16/16@16 = bf16 8x24/24@16 * bf16 24x16/16@16";
  const std::string digits =
      "the algorithm of \"" + product + "\" is not of 128 hexadecimal digits";
  EXPECT_EQ(ErrorOf(Replaced("fedcba98", "fedcba9")), digits);
  EXPECT_EQ(ErrorOf(Replaced("fedcba98", "fedcbaX8")), digits);
}

}  // namespace
}  // namespace panthera
