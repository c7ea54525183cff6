// What `panthera report` reads of runs, and the page that it makes of it.
#include "launcher/run_report.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <gmock/gmock.h>

#include "launcher/config_text.h"
#include "launcher/run_record.h"
#include "tests/support/temp_dir.h"

namespace panthera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Directories of runs of a tiny model, with the metrics that a test writes.
class RunReportTest : public ::testing::Test {
 protected:
  static RunOptions TinyOptions() {
    RunOptions options;
    options.model.vocab_size = 10;
    options.model.width = 4;
    options.model.layers = 1;
    options.model.heads = 1;
    options.model.ffn_width = 4;
    options.model.sequence_length = 4;
    options.optim.weight_decay = 0.1;
    options.optim.lazy_rows = LazyRows::kOff;
    options.data.train = {{.path = "text", .weight = 1}};
    options.train.steps = 3;
    options.train.global_batch = 1;
    options.train.micro_batch = 1;
    options.train.run_dir = "run";
    return options;
  }
  std::string WriteRun(const std::string& name, const RunOptions& options,
                       const std::string& metrics) {
    const std::string directory = dir_.File(name);
    EXPECT_EQ(files_.MakeDirectories(directory), absl::OkStatus());
    EXPECT_EQ(WriteFile(files_, directory + "/config.toml", PrintConfig(options)),
              absl::OkStatus());
    EXPECT_EQ(WriteFile(files_, directory + "/metrics.jsonl", metrics), absl::OkStatus());
    return directory;
  }
  RunRecord Read(const std::string& directory) {
    absl::StatusOr<RunRecord> run = ReadRunRecord(files_, directory);
    EXPECT_TRUE(run.ok()) << run.status();
    return *std::move(run);
  }

  testing::TempDir dir_;
  PosixFileSystem files_;
};

std::string RowsLine(int64_t step, double rate, double rms, double largest) {
  return absl::StrFormat(R"({"step":%d,"loss_nats":2.5,"learning_rate":%.17g,"embedding_max":3.0,)"
                         R"("embedding_share":0.25,"embedding_rows":[)"
                         R"({"tokens_from":0,"rows":1,"rms":99.0,"largest_rms":99.0},)"
                         R"({"tokens_from":1,"rows":4,"rms":%.17g,"largest_rms":%.17g},)"
                         R"({"tokens_from":64,"rows":5,"rms":0.03125,"largest_rms":0.0625}]})"
                         "\n",
                         step, rate, rms, largest);
}

TEST_F(RunReportTest, ReadsEveryStepOnceAndSkipsWhatIsStillBeingWritten) {
  const std::string directory = WriteRun(
      "group/a", TinyOptions(),
      "{\"step\":1,\"loss_nats\":8.0,\"learning_rate\":0.5}\n"
      "{\"step\":2,\"loss_nats\":900.0,\"learning_rate\":0.5}\n"
      "{\"step\":2,\"loss_nats\":7.0,\"validation_loss_nats\":6.5,\"learning_rate\":0.25}\n"
      "not a step\n"
      "{\"step\":3,\"loss_nats\":null,\"learning_rate\":0.5}\n"
      "{\"step\":4,\"loss_n");
  const RunRecord run = Read(directory + "/");
  EXPECT_EQ(run.name, "a");
  EXPECT_EQ(run.group, "group");
  EXPECT_EQ(run.parent, dir_.File("group"));
  EXPECT_EQ(run.damaged_lines, 1) << "the line that is still being written is none";
  ASSERT_EQ(run.steps.size(), 3U);
  EXPECT_EQ(run.steps[1].loss_nats, 7);
  EXPECT_EQ(run.steps[1].learning_rate, 0.25);
  EXPECT_TRUE(std::isnan(run.steps[2].loss_nats));
  EXPECT_EQ(FinalValidationLoss(run), 6.5);
  EXPECT_EQ(LastEmbeddingReport(run), nullptr);
  EXPECT_TRUE(LargestRows(run).empty());
  EXPECT_EQ(GrowthAgainstTheLaw(run), std::nullopt);
}

TEST_F(RunReportTest, TheFinalLossIsTheMeanOfTheLastTwentieth) {
  std::string metrics;
  for (int step = 1; step <= 40; ++step) {
    absl::StrAppend(&metrics, "{\"step\":", step, ",\"loss_nats\":", 100 - step, "}\n");
  }
  EXPECT_EQ(FinalLoss(Read(WriteRun("a", TinyOptions(), metrics))), 60.5);
}

// r' = alpha r (1 - r / 10) in small steps from 0.1, reported every 50 of them. Another rate after
// half of the steps: the law goes by what was used. A step errs by half of the square of its rate
// in the logit, 0.015 in all.
TEST_F(RunReportTest, ARowThatFollowsTheLawGrowsOnceAsFast) {
  std::string metrics;
  double r = 0.1;
  for (int step = 1; step <= 3000; ++step) {
    const double rate = step <= 1500 ? 0.002 : 0.004;
    r += rate * r * (1 - r / 10);
    if (step % 50 == 0) {
      metrics += RowsLine(step, rate, 0.05, r);
    } else {
      absl::StrAppendFormat(&metrics, "{\"step\":%d,\"loss_nats\":1,\"learning_rate\":%.17g}\n",
                            step, rate);
    }
  }
  const RunRecord run = Read(WriteRun("a", TinyOptions(), metrics));
  const std::optional<double> growth = GrowthAgainstTheLaw(run);
  ASSERT_TRUE(growth.has_value());
  EXPECT_NEAR(*growth, 1, 0.003);

  const std::vector<RowGrowth> rows = LargestRows(run);
  const std::vector<double> law = RowLaw(run);
  ASSERT_EQ(law.size(), 60U);
  for (size_t i = 0; i < law.size(); ++i) {
    EXPECT_NEAR(law[i] / rows[i].largest_rms, 1, 0.015) << rows[i].step;
  }
}

TEST_F(RunReportTest, ARowThatStandsStillOrAnotherAlgorithmHasNoGrowth) {
  std::string still;
  std::string growing;
  for (int step = 1; step <= 5; ++step) {
    still += RowsLine(step, 0.1, 0.05, 0.2);
    growing += RowsLine(step, 0.1, 0.05, 0.2 * step);
  }
  EXPECT_EQ(GrowthAgainstTheLaw(Read(WriteRun("a", TinyOptions(), still))), std::nullopt);
  EXPECT_NE(GrowthAgainstTheLaw(Read(WriteRun("b", TinyOptions(), growing))), std::nullopt);
  RunOptions adamw = TinyOptions();
  adamw.optim.algorithm = Algorithm::kAdamW;
  adamw.optim.accumulate = Accumulation::kGradient;
  EXPECT_EQ(GrowthAgainstTheLaw(Read(WriteRun("c", adamw, growing))), std::nullopt);
}

TEST_F(RunReportTest, ThePageHasATableAndFiveChartsForEveryGroupAndNeedsNothingElse) {
  RunOptions lion = TinyOptions();
  lion.optim.algorithm = Algorithm::kLion;
  lion.optim.accumulate = Accumulation::kGradient;
  const std::vector<RunRecord> runs = {
      Read(WriteRun("one/tiger", TinyOptions(),
                    RowsLine(1, 0.5, 0.75, 1) + RowsLine(2, 0.5, 0.875, 1.5))),
      Read(WriteRun("two/lion", lion, RowsLine(2, 0.5, 0.5, 0.5))),
      Read(WriteRun("one/<b>", lion, RowsLine(2, 0.5, 0.5, 0.5)))};
  const std::string page = RunReportPage("Title & more", runs);

  EXPECT_THAT(page, HasSubstr("<h1>Title &amp; more</h1>"));
  const size_t one = page.find("<h2>one</h2>");
  const size_t two = page.find("<h2>two</h2>");
  ASSERT_NE(one, std::string::npos);
  ASSERT_NE(two, std::string::npos);
  const std::string first = page.substr(one, two - one);
  const std::string second = page.substr(two);
  // 40 embedding + 16 * 4 attention + 48 feed-forward + 12 norms + 40 output = 204 parameters.
  EXPECT_THAT(first, HasSubstr("<td>tiger</td><td>tiger</td><td>0.001</td><td>0.1</td><td>2</td>"
                               "<td>2.5</td><td>-</td><td>3</td><td>25%</td><td>0.875</td>"
                               "<td>0.03125</td><td>-</td>"));
  EXPECT_THAT(first, HasSubstr("<td>&lt;b&gt;</td><td>lion</td>"));
  EXPECT_THAT(second, HasSubstr("<td>lion</td><td>lion</td>"));
  EXPECT_THAT(first, HasSubstr("tiger: law"));
  EXPECT_THAT(second, Not(HasSubstr(": law")));
  EXPECT_THAT(first, HasSubstr("1 / weight_decay"));
  for (const std::string& group : {first, second}) {
    size_t charts = 0;
    for (size_t at = group.find("<svg"); at != std::string::npos; at = group.find("<svg", at + 1)) {
      ++charts;
    }
    EXPECT_EQ(charts, 5U);
  }
  for (const char* outside : {"http", "src=", "href=", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
}

TEST_F(RunReportTest, DirectoriesOfOneNameInDifferentPlacesStayApart) {
  const std::string line = RowsLine(2, 0.5, 0.5, 0.5);
  const std::vector<RunRecord> runs = {Read(WriteRun("x/same/a", TinyOptions(), line)),
                                       Read(WriteRun("y/same/b", TinyOptions(), line)),
                                       Read(WriteRun("x/same/c", TinyOptions(), line))};
  const std::string page = RunReportPage("t", runs);
  const size_t second = page.find("<h2>same</h2>", page.find("<h2>same</h2>") + 1);
  ASSERT_NE(second, std::string::npos);
  EXPECT_LT(page.find("<td>c</td>"), second);
  EXPECT_GT(page.find("<td>b</td>"), second);
}

TEST_F(RunReportTest, BytesPerParameterAreThoseOfOneRankWhateverTheMesh) {
  RunOptions options = TinyOptions();
  const std::string line = RowsLine(2, 0.5, 0.5, 0.5);
  const RunRecord alone = Read(WriteRun("one/a", options, line));
  options.parallel = {.data = 2, .tensor = 3};
  const RunRecord shared = Read(WriteRun("three/a", options, line));
  const auto table = [](const RunRecord& run) {
    const std::string page = RunReportPage("t", {&run, 1});
    const size_t begin = page.find("<tr><td>");
    return page.substr(begin, page.find("</tr>", begin) - begin);
  };
  EXPECT_EQ(table(shared), table(alone));
}

TEST_F(RunReportTest, EveryDamagedLineIsCountedAndCostsNoOtherStep) {
  const std::string good = "{\"step\":1,\"loss_nats\":8.0,\"learning_rate\":0.5}\n";
  const std::string deep(100000, '[');
  const RunRecord run = Read(WriteRun(
      "damaged", TinyOptions(),
      absl::StrCat(std::string("\0\0\0\n", 4), "\xff\xfe\n", deep, "\n{\"step\":\"1\"}\n",
                   "{\"step\":1e300}\n[]\n", good,
                   "{\"step\":2,\"loss_nats\":[],\"embedding_rows\":[7,{\"rows\":null}]}\n")));
  EXPECT_EQ(run.damaged_lines, 6);
  ASSERT_EQ(run.steps.size(), 2U);
  EXPECT_EQ(run.steps[0].loss_nats, 8);
  EXPECT_TRUE(std::isnan(run.steps[1].loss_nats));
  EXPECT_THAT(RunReportPage("t", {&run, 1}), HasSubstr("<td>damaged</td>"));
}

TEST_F(RunReportTest, WhatIsNoRunIsRefusedByName) {
  const std::string missing(ReadRunRecord(files_, dir_.File("none")).status().message());
  EXPECT_THAT(missing, HasSubstr(dir_.File("none") + "/config.toml"));
  const std::string empty(
      ReadRunRecord(files_, WriteRun("empty", TinyOptions(), "")).status().message());
  EXPECT_THAT(empty, HasSubstr("empty/metrics.jsonl has no step yet"));
}

}  // namespace
}  // namespace panthera
