#include "launcher/run_report.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "launcher/line_chart.h"
#include "launcher/trainer.h"
#include "launcher/world.h"
#include "model/cost.h"

namespace panthera {
namespace {

constexpr char kHead[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>%s</title>\n"
    "<style>\n"
    "body { font: 14px/1.4 sans-serif; max-width: 1340px; margin: 1em auto; padding: 0 1em;\n"
    "       color: #222; background: #fff }\n"
    "table { border-collapse: collapse; margin: 1em 0 }\n"
    "th, td { border-bottom: 1px solid #ccc; padding: 2px 8px; text-align: right }\n"
    "th { vertical-align: bottom }\n"
    "th:first-child, td:first-child { text-align: left }\n"
    "svg { max-width: 100%%; height: auto }\n"
    "svg text { font: 11px sans-serif; fill: #222 }\n"
    "svg .title { font-size: 13px; font-weight: bold }\n"
    "svg .grid { stroke: #ddd }\n"
    "</style>\n</head>\n<body>\n<h1>%s</h1>\n";

constexpr char kColumns[] =
    "<p>Losses are nats per token: of training the mean of the last twentieth of the steps. |E| "
    "are the "
    "components of the input embedding; above half of 1 / weight_decay they are outliers. Rows "
    "are rare or frequent by how often the training text has their token, or, if it has more than "
    "100 million, a sample of about as many. Growth: of the largest "
    "row's RMS r, where 1 is that of a row whose signs persist under Tiger, dr/dt = alpha r (1 - "
    "weight_decay r). Bytes per parameter on one rank: weights, optimizer state, gradients.</p>\n";

using Runs = std::vector<const RunRecord*>;

// Runs by the directory that they lie in, in the order in which directories first occur.
std::vector<Runs> ByParent(std::span<const RunRecord> runs) {
  std::vector<Runs> groups;
  for (const RunRecord& run : runs) {
    auto found = std::find_if(groups.begin(), groups.end(), [&](const Runs& group) {
      return group.front()->parent == run.parent;
    });
    if (found == groups.end()) {
      found = groups.insert(groups.end(), Runs());
    }
    found->push_back(&run);
  }
  return groups;
}

// --- table --------------------------------------------------------------------------------------

std::string Number(std::optional<double> value, const char* suffix = "") {
  return value.has_value() && std::isfinite(*value) ? absl::StrFormat("%.4g%s", *value, suffix)
                                                    : std::string("-");
}

std::string BytesPerParameter(const RunRecord& run) {
  RunOptions options = run.options;
  // Whatever mesh it ran on.
  options.parallel = {};
  if (!options.Finish(1).ok()) {
    return "-";
  }
  absl::StatusOr<World> world = PlanWorld(options.parallel, 1);
  if (!world.ok()) {
    return "-";
  }
  const StepPlan plan = Trainer::Plan(options, *world, Device{});
  const auto parameters = static_cast<double>(CountParameters(options.model).total());
  const auto bytes = [&](MemoryCategory category) {
    return static_cast<double>(plan.memory.bytes(category)) / parameters;
  };
  return absl::StrFormat("%.1f + %.1f + %.1f", bytes(MemoryCategory::kWeights),
                         bytes(MemoryCategory::kOptimizerState), bytes(MemoryCategory::kGradients));
}

double MedianRate(const RunRecord& run) {
  std::vector<double> rates;
  for (const StepMetrics& step : run.steps) {
    if (std::isfinite(step.tokens_per_second)) {
      rates.push_back(step.tokens_per_second);
    }
  }
  if (rates.empty()) {
    return 0;
  }
  const auto middle = rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

// The RMS of the rarest and of the most frequent tokens that the text has.
std::pair<std::optional<double>, std::optional<double>> RareAndFrequentRms(
    const StepMetrics* report) {
  std::optional<double> rare;
  std::optional<double> frequent;
  if (report != nullptr) {
    for (const RowClassMetrics& rows : report->embedding_rows) {
      if (rows.tokens_from > 0) {
        rare = rare.has_value() ? rare : rows.rms;
        frequent = rows.rms;
      }
    }
  }
  return {rare, frequent};
}

std::string Row(const RunRecord& run) {
  const OptimOptions& optim = run.options.optim;
  const StepMetrics* report = LastEmbeddingReport(run);
  const auto [rare, frequent] = RareAndFrequentRms(report);
  std::string cells;
  const auto add = [&](const std::string& cell) {
    absl::StrAppend(&cells, "<td>", EscapeHtml(cell), "</td>");
  };
  add(run.name);
  add(EnumName(optim.algorithm));
  add(absl::StrFormat("%g", optim.learning_rate));
  add(absl::StrFormat("%g", optim.weight_decay));
  add(absl::StrCat(run.steps.back().step));
  add(Number(FinalLoss(run)));
  add(Number(FinalValidationLoss(run)));
  add(report == nullptr ? "-" : Number(report->embedding_max));
  add(report == nullptr || !report->embedding_share.has_value()
          ? "-"
          : Number(100 * *report->embedding_share, "%"));
  add(Number(rare));
  add(Number(frequent));
  add(Number(GrowthAgainstTheLaw(run)));
  add(BytesPerParameter(run));
  add(absl::StrFormat("%.0f", MedianRate(run)));
  return absl::StrCat("<tr>", cells, "</tr>\n");
}

std::string Table(const Runs& runs) {
  std::string out =
      "<table>\n<tr><th>run</th><th>algorithm</th><th>learning<br>rate</th>"
      "<th>weight<br>decay</th><th>steps</th><th>training<br>loss</th><th>held-out<br>loss</th>"
      "<th>largest<br>|E|</th><th>outliers</th><th>RMS of<br>rarest rows</th>"
      "<th>of most<br>frequent</th><th>growth of<br>largest row</th><th>bytes per<br>parameter</th>"
      "<th>tokens/s</th></tr>\n";
  for (const RunRecord* run : runs) {
    absl::StrAppend(&out, Row(*run));
  }
  return out + "</table>\n";
}

// --- curves -------------------------------------------------------------------------------------

// One series for each run, in the colour of its place, with the points that `points_of` gives.
template <typename PointsOf>
std::vector<ChartSeries> SeriesOf(const Runs& runs, PointsOf points_of) {
  std::vector<ChartSeries> all;
  for (size_t i = 0; i < runs.size(); ++i) {
    all.push_back({runs[i]->name, points_of(*runs[i]), static_cast<int>(i), ChartStroke::kSolid});
  }
  return all;
}

double StepOf(const StepMetrics& step) { return static_cast<double>(step.step); }

// Means over hundredths of the run, so that curves of noisy losses can be told apart.
std::vector<ChartPoint> SmoothLoss(const RunRecord& run) {
  const size_t window = std::max<size_t>(1, run.steps.size() / 100);
  std::vector<ChartPoint> points;
  for (size_t begin = 0; begin < run.steps.size(); begin += window) {
    const size_t end = std::min(begin + window, run.steps.size());
    double sum = 0;
    for (size_t i = begin; i < end; ++i) {
      sum += run.steps[i].loss_nats;
    }
    points.push_back({StepOf(run.steps[end - 1]), sum / static_cast<double>(end - begin)});
  }
  return points;
}

std::vector<ChartPoint> ValidationLoss(const RunRecord& run) {
  std::vector<ChartPoint> points;
  for (const StepMetrics& step : run.steps) {
    if (step.validation_loss_nats.has_value()) {
      points.push_back({StepOf(step), *step.validation_loss_nats});
    }
  }
  return points;
}

std::vector<ChartPoint> LargestComponent(const RunRecord& run) {
  std::vector<ChartPoint> points;
  for (const StepMetrics& step : run.steps) {
    if (step.embedding_max.has_value()) {
      points.push_back({StepOf(step), *step.embedding_max});
    }
  }
  return points;
}

std::vector<ChartPoint> RmsByFrequency(const RunRecord& run) {
  std::vector<ChartPoint> points;
  if (const StepMetrics* report = LastEmbeddingReport(run); report != nullptr) {
    for (const RowClassMetrics& rows : report->embedding_rows) {
      points.push_back({static_cast<double>(rows.tokens_from), rows.rms});
    }
  }
  return points;
}

std::vector<ChartPoint> LargestRow(const RunRecord& run) {
  std::vector<ChartPoint> points;
  for (const RowGrowth& growth : LargestRows(run)) {
    points.push_back({static_cast<double>(growth.step), growth.largest_rms});
  }
  return points;
}

// The law of growth where rows are free to follow it.
void AddLaws(const Runs& runs, std::vector<ChartSeries>& series) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const OptimOptions optim = runs[i]->options.optim.ForTable();
    if (optim.algorithm != Algorithm::kTiger || optim.table_rms != TableRms::kRow ||
        optim.lazy_rows != LazyRows::kOff || runs[i]->options.model.tie != Tie::kNone) {
      continue;
    }
    const std::vector<RowGrowth> growth = LargestRows(*runs[i]);
    const std::vector<double> law = RowLaw(*runs[i]);
    ChartSeries one{runs[i]->name + ": law", {}, static_cast<int>(i), ChartStroke::kDashed};
    for (size_t j = 0; j < law.size(); ++j) {
      one.points.push_back({static_cast<double>(growth[j].step), law[j]});
    }
    series.push_back(std::move(one));
  }
}

// A line at 1 / weight_decay if the runs have that in common.
void AddBound(const Runs& runs, std::vector<ChartSeries>& series) {
  const double decay = runs.front()->options.optim.ForTable().weight_decay;
  const bool common = std::all_of(runs.begin(), runs.end(), [&](const RunRecord* run) {
    return run->options.optim.ForTable().weight_decay == decay;
  });
  if (common && decay > 0) {
    const auto last = static_cast<double>(runs.front()->steps.back().step);
    series.push_back(
        {"1 / weight_decay", {{1, 1 / decay}, {last, 1 / decay}}, 8, ChartStroke::kDashed});
  }
}

std::string Charts(const Runs& runs) {
  const ChartAxis steps{"optimizer step"};
  std::vector<ChartSeries> components = SeriesOf(runs, LargestComponent);
  AddBound(runs, components);
  std::vector<ChartSeries> rows = SeriesOf(runs, LargestRow);
  AddLaws(runs, rows);
  return absl::StrCat(
      LineChart("Training loss", steps, {"nats per token"}, SeriesOf(runs, SmoothLoss)),
      LineChart("Held-out loss", steps, {"nats per token"}, SeriesOf(runs, ValidationLoss)),
      LineChart("Largest component of the embedding", steps, {"magnitude", AxisScale::kLog},
                components),
      LineChart("Rows by the frequency of their tokens",
                {"tokens in the text or its sample", AxisScale::kLog},
                {"RMS of rows", AxisScale::kLog}, SeriesOf(runs, RmsByFrequency)),
      LineChart("Largest row of the embedding", steps, {"RMS", AxisScale::kLog}, rows));
}

}  // namespace

std::string RunReportPage(const std::string& title, std::span<const RunRecord> runs) {
  const std::string escaped = EscapeHtml(title);
  std::string page = absl::StrFormat(kHead, escaped, escaped);
  absl::StrAppend(&page, kColumns);
  for (const Runs& group : ByParent(runs)) {
    absl::StrAppend(&page, "<h2>", EscapeHtml(group.front()->group), "</h2>\n", Table(group),
                    Charts(group));
  }
  return page + "</body>\n</html>\n";
}

}  // namespace panthera
