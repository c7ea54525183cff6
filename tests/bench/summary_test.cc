#include "tests/bench/summary.h"

#include <sstream>
#include <string>

#include <gmock/gmock.h>

namespace panthera::bench {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

Predictions Expected() {
  Predictions predictions;
  predictions.peak_flops = 1000e12;
  predictions.copy_bytes_per_second = 4e12;
  predictions.gemm_flops_per_second = 800e12;
  predictions.trainings = {{"124m", 0.4, 0.45}};
  return predictions;
}

std::string Of(const std::string& lines) {
  std::istringstream results(lines);
  return Summarize(results, Expected());
}

TEST(SummaryTest, SetsKernelsNextToPredictionsAndPyTorch) {
  const std::string text =
      Of(R"({"stage":"kernel","kernel":"swiglu","shape":"7b","seconds":2e-4,"gbytes_per_s":3000,)"
         R"("predicted_ratio":0.8,"measured_ratio":0.72,"written":true})"
         "\n"
         R"({"stage":"torch","kernel":"swiglu","shape":"7b","mode":"compile","seconds":3e-4})"
         "\n"
         R"({"stage":"torch","kernel":"swiglu","shape":"124m","mode":"eager","seconds":9e-4})"
         "\n");
  EXPECT_THAT(text, ContainsRegex("swiglu +7b +0.80 +0.72 +0.90 +200.0 +3000 GB/s +compile 1.50"));
  EXPECT_THAT(text, Not(HasSubstr("eager")));
}

TEST(SummaryTest, MarksWhatIsOffByMoreThanFifteenPercent) {
  const std::string line = R"({"stage":"kernel","kernel":"k","shape":"s","seconds":1,)"
                           R"("predicted_ratio":0.5,"measured_ratio":)";
  EXPECT_THAT(Of(line + "0.57}"), Not(HasSubstr("!")));
  EXPECT_THAT(Of(line + "0.58}"), HasSubstr("!"));
  EXPECT_THAT(Of(line + "0.42}"), HasSubstr("!"));
}

TEST(SummaryTest, UtilisationIsOfThePeakAndOfTheMeasuredProduct) {
  const std::string text = Of(
      R"({"stage":"ceiling","kernel":"gemm","tflops":700})"
      "\n"
      R"({"stage":"ceiling","kernel":"gemm","tflops":750})"
      "\n"
      R"({"stage":"ceiling","kernel":"copy","gbytes_per_s":4000})"
      "\n"
      R"({"stage":"train","program":"panthera","model":"124m","ranks":1,"tokens_per_second":1e5,)"
      R"("flops_per_token":3e9,"ledger_bytes":2147483648,"step_seconds":[0.1,0.3,0.2],)"
      R"("ops":[{"op":"swiglu forward","seconds":0.12}]})"
      "\n");
  EXPECT_THAT(text, ContainsRegex("product, TFLOP/s +800 +750 +0.94"));
  // 3e14 of 1e15 and of 7.5e14 operations per second; two GiB.
  EXPECT_THAT(text,
              ContainsRegex("124m panthera 1 rank +0.400 +0.300 +0.75 ! +0.45 +0.40 +100000 +2.0"));
  // 40 of 200 ms in each of three steps.
  EXPECT_THAT(text, ContainsRegex("swiglu forward +40.00 +20.0 %"));
  EXPECT_THAT(text, ContainsRegex("between ops +160.00 +80.0 %"));
}

TEST(SummaryTest, PyTorchHasNoPredictionOfOurs) {
  const std::string text =
      Of(R"({"stage":"train","program":"torch 2.11","mode":"compile","model":"124m",)"
         R"("tokens_per_second":1e5,"flops_per_token":3e9,"peak_bytes":1073741824})");
  EXPECT_THAT(text, ContainsRegex("124m torch 2.11 compile +- +0.300 +- "));
}

TEST(SummaryTest, SaysHowEveryStageEnded) {
  const std::string text =
      Of("{\"stage\":\"status\",\"name\":\"a\",\"exit\":0,\"seconds\":1}\n"
         "{\"stage\":\"status\",\"name\":\"b\",\"exit\":124,\"seconds\":1}\n"
         "{\"stage\":\"status\",\"name\":\"c\",\"exit\":3,\"seconds\":1}\n"
         "{\"stage\":\"status\",\"name\":\"d\",\"exit\":77,\"seconds\":1,\"detail\":\"no torch\"}\n"
         "{\"stage\":\"check\",\"name\":\"restart\",\"passed\":false,\"detail\":\"step 4\"}\n");
  EXPECT_THAT(text, ContainsRegex("a +done"));
  EXPECT_THAT(text, ContainsRegex("b +TIMED OUT"));
  EXPECT_THAT(text, ContainsRegex("c +FAILED 3"));
  EXPECT_THAT(text, ContainsRegex("d +skipped +1.0  no torch"));
  EXPECT_THAT(text, ContainsRegex("restart +FAILED  step 4"));
}

TEST(SummaryTest, OutputsThatWereNotWrittenShow) {
  EXPECT_THAT(Of(R"({"stage":"kernel","kernel":"k","shape":"s","seconds":1,"written":false})"),
              HasSubstr("NOT WRITTEN"));
}

TEST(SummaryTest, CountsLinesThatAreNoResults) {
  EXPECT_THAT(Of("not json\n{\"kernel\":\"k\"}\n[1]\n{\"stage\":\"kernel\",\"ker\n\n"),
              HasSubstr("4 lines could not be read"));
  EXPECT_EQ(Of(""), "");
}

// Half of a line that a stage was killed over must not take the others with it.
TEST(SummaryTest, FieldsOfTheWrongTypeCountAsMissing) {
  const std::string text =
      Of(R"({"stage":"kernel","kernel":7,"shape":null,"seconds":"fast","measured_ratio":[]})"
         "\n"
         R"({"stage":"train","model":"124m","program":"panthera","ops":3,"step_seconds":"x"})"
         "\n");
  EXPECT_THAT(text, ContainsRegex(" - +- "));
}

}  // namespace
}  // namespace panthera::bench
