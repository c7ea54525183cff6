#include "tests/bench/predictions.h"

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "tests/bench/kernel_case.h"
#include "tests/support/temp_dir.h"

namespace panthera::bench {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Predictions> Parse(const std::string& text) {
  const panthera::testing::TempDir directory;
  const std::string path = directory.File("predictions.json");
  std::ofstream(path) << text;
  return Predictions::Load(path);
}

TEST(PredictionsTest, TheFirstEntryWhoseShapeBeginsTheShapeCounts) {
  const absl::StatusOr<Predictions> predictions = Parse(R"({
    "gpu": "x", "peak_flops": 1, "copy_bytes_per_second": 1, "gemm_flops_per_second": 1,
    "kernels": [{"kernel": "gemm", "shape": "7b", "ratio": 0.9}, {"kernel": "gemm", "ratio": 0.5}],
    "training": []})");
  ASSERT_TRUE(predictions.ok()) << predictions.status();
  EXPECT_EQ(predictions->KernelRatio("gemm", "7b qkv"), 0.9);
  EXPECT_EQ(predictions->KernelRatio("gemm", "124m qkv"), 0.5);
  EXPECT_EQ(predictions->KernelRatio("copy", "7b"), std::nullopt);
  EXPECT_FALSE(predictions->TrainingOf("7b").has_value());
}

TEST(PredictionsTest, AFileThatLacksAFieldIsNamed) {
  const absl::Status status = Parse(R"({"gpu": "x"})").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("predictions.json"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("peak_flops"));
}

TEST(PredictionsTest, TheShippedFileHasAnExpectationForEveryKernelAndModel) {
  const absl::StatusOr<Predictions> predictions = Predictions::Load(PANTHERA_PREDICTIONS);
  ASSERT_TRUE(predictions.ok()) << predictions.status();
  for (const ModelShape& model : GpuModelShapes()) {
    EXPECT_TRUE(predictions->TrainingOf(model.name).has_value()) << model.name;
    for (const auto& kernels : {RowKernels(model), OptimizerKernels(model), ProductKernels(model),
                                AttentionKernels(model), AttentionSweep()}) {
      for (const KernelCase& kernel : kernels) {
        EXPECT_TRUE(predictions->KernelRatio(kernel.kernel, kernel.shape).has_value())
            << kernel.kernel << " " << kernel.shape;
      }
    }
  }
}

// By hand for the 7-billion model: 16384 rows of 4096 columns, 11008 in the feed-forward layer.
TEST(KernelWorkTest, CountsWhatTheFormulasSay) {
  const ModelShape model = GpuModelShapes().back();
  double rmsnorm_bytes = 0;
  for (const KernelCase& kernel : RowKernels(model)) {
    if (kernel.kernel == "rmsnorm_forward") {
      rmsnorm_bytes = kernel.work.bytes;
    }
    if (kernel.kernel == "swiglu_backward") {
      EXPECT_EQ(kernel.work.bytes, 5.0 * 16384 * 11008 * 2);
    }
    if (kernel.kernel == "cross_entropy_part") {
      EXPECT_EQ(kernel.work.bytes, 8192 * (6288.0 * 2 + 4 + 4 * 8));
    }
    if (kernel.kernel == "sum_rows") {
      EXPECT_EQ(kernel.work.bytes, 9.0 * 2048 * 4096 * 2);
    }
  }
  EXPECT_EQ(rmsnorm_bytes, 2.0 * 16384 * 4096 * 2 + 4 * 16384);
  const std::vector<KernelCase> attention = AttentionKernels(model);
  // Eight sequences of 32 heads: 2048 * 2049 / 2 pairs, four operations for each of 128 columns.
  EXPECT_EQ(attention[0].work.flops, 8.0 * 32 * (2048.0 * 2049 / 2) * 128 * 4);
  EXPECT_EQ(attention[1].work.flops, 2.5 * attention[0].work.flops);
  EXPECT_EQ(ProductKernels(model)[0].work.flops, 2.0 * 16384 * 3 * 4096 * 4096);
}

TEST(KernelWorkTest, AWindowCountsOnlyThePairsInside) {
  for (const KernelCase& kernel : AttentionSweep()) {
    if (kernel.kernel == "attention_forward" && kernel.shape == "S=2048 D=64 window1024") {
      const double pairs = 1024.0 * 1025 / 2 + 1024.0 * 1024;
      EXPECT_EQ(kernel.work.flops, 8.0 * 32 * pairs * 64 * 4);
      return;
    }
  }
  FAIL() << "no such shape";
}

}  // namespace
}  // namespace panthera::bench
