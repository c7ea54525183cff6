#include "runtime/metrics/json_lines.h"

#include <fstream>
#include <limits>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;

std::string Contents(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

StepMetrics Step(int64_t step) {
  StepMetrics metrics;
  metrics.step = step;
  return metrics;
}

TEST(JsonLinesTest, LineHasEveryMeasuredNumberUnderItsUnit) {
  StepMetrics metrics;
  metrics.step = 120;
  metrics.total_steps = 2000;
  metrics.tokens = 15728640;
  metrics.loss_nats = 3.412;
  metrics.validation_loss_nats = 3.39;
  metrics.learning_rate = 0.0012;
  metrics.gradient_norm = 0.84;
  metrics.step_seconds = 7.2;
  metrics.tokens_per_second = 18200;
  metrics.gemm_share = 0.41;
  metrics.bytes_sent = 4096;
  metrics.embedding_max = 1.5;
  metrics.embedding_share = 0.25;
  metrics.embedding_rows = {{.tokens_from = 1, .rows = 12, .rms = 0.5, .largest_rms = 1.25},
                            {.tokens_from = 64, .rows = 3, .rms = 2, .largest_rms = 2.5}};

  EXPECT_EQ(JsonLine(metrics),
            R"({"step":120,"tokens":15728640,"loss_nats":3.412,"validation_loss_nats":3.39,)"
            R"("learning_rate":0.0012,"gradient_norm":0.84,"step_seconds":7.2,)"
            R"("tokens_per_second":18200.0,"gemm_share":0.41,)"
            R"("bytes_sent":4096,"embedding_max":1.5,"embedding_share":0.25,)"
            R"("embedding_rows":[{"tokens_from":1,"rows":12,"rms":0.5,"largest_rms":1.25},)"
            R"({"tokens_from":64,"rows":3,"rms":2.0,"largest_rms":2.5}]})"
            "\n");
}

TEST(JsonLinesTest, AbsentNumbersHaveNoKeyAndNonFiniteOnesAreNull) {
  StepMetrics metrics;
  metrics.loss_nats = std::numeric_limits<double>::quiet_NaN();

  EXPECT_EQ(JsonLine(metrics),
            R"({"step":0,"tokens":0,"loss_nats":null,"learning_rate":0.0,"step_seconds":0.0,)"
            R"("tokens_per_second":0.0,"bytes_sent":0})"
            "\n");
}

TEST(JsonLinesTest, WhatWasLeftOutHasKeysOnlyWhereThereIsSome) {
  StepMetrics metrics;
  metrics.gradient_norm = 2;
  metrics.skipped = true;
  EXPECT_THAT(JsonLine(metrics),
              HasSubstr(R"("gradient_norm":2.0,"skipped":true,"step_seconds":0.0,)"));

  metrics.skipped = false;
  metrics.masked_gradients = 12;
  EXPECT_THAT(JsonLine(metrics),
              HasSubstr(R"("gradient_norm":2.0,"masked_gradients":12,"step_seconds":0.0,)"));
}

TEST(JsonLinesTest, LossesKeepEveryBit) {
  StepMetrics metrics;
  metrics.loss_nats = 0.1 + 0.2;

  EXPECT_THAT(JsonLine(metrics), HasSubstr("\"loss_nats\":0.30000000000000004,"));
}

TEST(JsonLinesTest, KeepsWhatIsNotLaterAndDropsWhatIsBroken) {
  const std::string contents =
      "{\"step\":1}\n"
      "{\"step\":2,\"loss_nats\":null}\n"
      "{\"event\":\"resumed\"}\n"
      "{\"step\":\n"
      "{\"step\":3}\n"
      "{\"step\":2,\"again\":true}\n"
      "{\"step\":1";

  EXPECT_EQ(KeepUpToStep(contents, 2),
            "{\"step\":1}\n{\"step\":2,\"loss_nats\":null}\n{\"event\":\"resumed\"}\n"
            "{\"step\":2,\"again\":true}\n");
  EXPECT_EQ(KeepUpToStep("{\"step\":18446744073709551615}\n", 2), "");
  EXPECT_EQ(KeepUpToStep("", 2), "");
  EXPECT_EQ(KeepUpToStep("{\"step\":1", 2), "");
}

TEST(JsonLinesTest, AResumedRunLeavesNoStepTwice) {
  testing::TempDir dir;
  const std::string path = dir.File("metrics.jsonl");
  {
    const auto file = *JsonLinesFile::Open(path, 0);
    for (int64_t step = 1; step <= 5; ++step) {
      ASSERT_TRUE(file->Report(Step(step)).ok());
    }
  }
  std::ofstream(path, std::ios::app) << "{\"step\":6,\"los";

  {
    const auto file = *JsonLinesFile::Open(path, 3);
    ASSERT_TRUE(file->Report(Step(4)).ok());
  }

  EXPECT_EQ(Contents(path),
            JsonLine(Step(1)) + JsonLine(Step(2)) + JsonLine(Step(3)) + JsonLine(Step(4)));
}

TEST(JsonLinesTest, ANewRunBeginsAnEmptyFile) {
  testing::TempDir dir;
  const std::string path = dir.File("metrics.jsonl");
  { ASSERT_TRUE((*JsonLinesFile::Open(path, 0))->Report(Step(1)).ok()); }

  ASSERT_TRUE(JsonLinesFile::Open(path, 0).ok());

  EXPECT_EQ(Contents(path), "");
}

TEST(JsonLinesTest, AFileThatCannotBeMadeIsNamed) {
  const absl::Status status = JsonLinesFile::Open("/nonexistent/metrics.jsonl", 0).status();

  EXPECT_THAT(std::string(status.message()),
              HasSubstr("cannot create /nonexistent/metrics.jsonl: No such file"));
}

}  // namespace
}  // namespace panthera
