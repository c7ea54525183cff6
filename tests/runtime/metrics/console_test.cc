#include "runtime/metrics/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <limits>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace panthera {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

StepMetrics Full() {
  StepMetrics metrics;
  metrics.step = 120;
  metrics.total_steps = 2000;
  metrics.loss_nats = 3.4124;
  metrics.validation_loss_nats = 3.39;
  metrics.learning_rate = 1.2e-3;
  metrics.gradient_norm = 0.841;
  metrics.tokens_per_second = 18234;
  metrics.gemm_share = 0.413;
  return metrics;
}

TEST(ConsoleTest, LineShowsEverythingThatWasMeasured) {
  EXPECT_EQ(ConsoleLine(Full(), 80),
            "step  120/2000  loss  3.412  val  3.390  lr 1.20e-3  grad   0.84  18.2k tok/s  "
            "GEMM  41%  eta 1m20s");
}

TEST(ConsoleTest, WhatWasNotMeasuredLeavesItsColumnsBlank) {
  StepMetrics metrics = Full();
  metrics.step = 7;
  metrics.validation_loss_nats.reset();
  metrics.gradient_norm.reset();

  EXPECT_EQ(ConsoleLine(metrics, 80),
            "step    7/2000  loss  3.412              lr 1.20e-3               18.2k tok/s  "
            "GEMM  41%  eta 1m20s");
}

TEST(ConsoleTest, LinesDoNotEndInBlanks) {
  StepMetrics metrics = Full();
  metrics.gemm_share.reset();

  EXPECT_THAT(ConsoleLine(metrics, -1), EndsWith("tok/s"));
}

TEST(ConsoleTest, ALossThatIsNotANumberIsShown) {
  StepMetrics metrics = Full();
  metrics.loss_nats = std::numeric_limits<double>::quiet_NaN();

  EXPECT_THAT(ConsoleLine(metrics, 80), HasSubstr("loss    nan  val"));
}

TEST(ConsoleTest, WhatWasLeftOutIsAtTheEndOfTheLine) {
  StepMetrics metrics = Full();
  metrics.skipped = true;
  EXPECT_THAT(ConsoleLine(metrics, 80), EndsWith("eta 1m20s  skipped"));

  metrics.skipped = false;
  metrics.masked_gradients = 12;
  EXPECT_THAT(ConsoleLine(metrics, 80), EndsWith("eta 1m20s  masked 12"));
}

TEST(ConsoleTest, CountsHaveThreeDigitsAndAUnit) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(950.4), "950");
  EXPECT_EQ(FormatCount(999.4), "999");
  EXPECT_EQ(FormatCount(999.5), "1.00k");
  EXPECT_EQ(FormatCount(9994), "9.99k");
  EXPECT_EQ(FormatCount(9996), "10.0k");
  EXPECT_EQ(FormatCount(18234), "18.2k");
  EXPECT_EQ(FormatCount(99960), "100k");
  EXPECT_EQ(FormatCount(1.25e6), "1.25M");
  EXPECT_EQ(FormatCount(3.4e9), "3.40G");
  EXPECT_EQ(FormatCount(1e15), "1.00P");
  EXPECT_EQ(FormatCount(1e24), "1000Z");
  EXPECT_EQ(FormatCount(std::numeric_limits<double>::infinity()), "-");
}

TEST(ConsoleTest, DurationsHaveTwoUnits) {
  EXPECT_EQ(FormatDuration(0.4), "0s");
  EXPECT_EQ(FormatDuration(59.4), "59s");
  EXPECT_EQ(FormatDuration(59.6), "1m00s");
  EXPECT_EQ(FormatDuration(80), "1m20s");
  EXPECT_EQ(FormatDuration(2 * 3600 + 5 * 60 + 59), "2h05m");
  EXPECT_EQ(FormatDuration(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::quiet_NaN()), "-");
}

TEST(ConsoleTest, RatesHaveAShortExponent) {
  EXPECT_EQ(FormatRate(1.2e-3), "1.20e-3");
  EXPECT_EQ(FormatRate(9.999e-5), "1.00e-4");
  EXPECT_EQ(FormatRate(1.5e-12), "1.50e-12");
  EXPECT_EQ(FormatRate(2), "2.00e+0");
  EXPECT_EQ(FormatRate(0), "0.00e+0");
}

TEST(ConsoleTest, PrintsFirstLastMultiplesValidationsAndWhatWasLeftOut) {
  std::ostringstream out;
  ConsoleSink sink(out, /*interval=*/10);
  for (int64_t step = 1; step <= 23; ++step) {
    StepMetrics metrics;
    metrics.step = step;
    metrics.total_steps = 23;
    if (step == 15) {
      metrics.validation_loss_nats = 1.0;
    }
    metrics.skipped = step == 4;
    metrics.masked_gradients = step == 17 ? 1 : 0;
    ASSERT_TRUE(sink.Report(metrics).ok());
  }

  std::istringstream lines(out.str());
  std::string line;
  std::string steps;
  while (std::getline(lines, line)) {
    steps += line.substr(0, line.find('/'));
  }
  EXPECT_EQ(steps, "step  1step  4step 10step 15step 17step 20step 23");
}

// mpirun stops reading what its ranks print once it is asked to end.
TEST(ConsoleTest, LineThatNobodyReadsIsLeftOut) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  std::ostringstream out;
  ConsoleSink sink(out, /*interval=*/1, ends[1]);
  ASSERT_TRUE(sink.Report(Full()).ok());
  EXPECT_NE(out.str(), "");

  out.str("");
  const std::string filling(4096, 'x');
  while (write(ends[1], filling.data(), filling.size()) > 0) {
  }
  ASSERT_TRUE(sink.Report(Full()).ok());
  EXPECT_EQ(out.str(), "");
  close(ends[0]);
  close(ends[1]);
}

TEST(ConsoleTest, TimeLeftForgetsTheWarmUpOfTheFirstStep) {
  std::ostringstream out;
  ConsoleSink sink(out, /*interval=*/1);
  StepMetrics metrics;
  metrics.total_steps = 102;
  metrics.step = 1;
  metrics.step_seconds = 1000;
  ASSERT_TRUE(sink.Report(metrics).ok());
  metrics.step = 2;
  metrics.step_seconds = 2;
  ASSERT_TRUE(sink.Report(metrics).ok());

  EXPECT_THAT(out.str(), EndsWith("eta 3m20s\n"));
}

}  // namespace
}  // namespace panthera
