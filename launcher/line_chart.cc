#include "launcher/line_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

#include "runtime/base/check.h"

namespace panthera {
namespace {

// Pixels of the picture and of the frame in it.
constexpr double kWidth = 640;
constexpr double kPlotHeight = 300;
constexpr double kLeft = 64;
constexpr double kRight = 16;
constexpr double kTop = 28;
constexpr double kBelow = 44;
constexpr double kLegendLine = 16;
constexpr int kLegendColumns = 3;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

double Transformed(double value, AxisScale scale) {
  return scale == AxisScale::kLog ? std::log10(value) : value;
}

// Other magnitudes are those of damaged files, and ranges of them need not be finite.
constexpr double kLargest = 1e300;

bool IsDrawable(double value, AxisScale scale) {
  return scale == AxisScale::kLog ? value >= 1 / kLargest && value <= kLargest
                                  : std::abs(value) <= kLargest;
}

// A range that has an extent.
Range Widened(Range range, AxisScale scale) {
  if (range.low < range.high) {
    return range;
  }
  if (scale == AxisScale::kLog) {
    return {range.low / 2, range.high * 2};
  }
  // One more may be too little to change a large value.
  const double margin = std::max(1.0, std::abs(range.low) * 1e-6);
  return {range.low - margin, range.high + margin};
}

// Where values lie in the frame, in pixels.
class Frame {
 public:
  Frame(const ChartAxis& x, const ChartAxis& y, const Range& xs, const Range& ys)
      : x_(x), y_(y), xs_(xs), ys_(ys) {}

  double X(double value) const {
    return kLeft + Share(value, xs_, x_.scale) * (kWidth - kLeft - kRight);
  }
  double Y(double value) const { return kTop + (1 - Share(value, ys_, y_.scale)) * kPlotHeight; }

  std::string Grid() const {
    std::string out;
    for (const double tick : ChartTicks(xs_.low, xs_.high, x_.scale)) {
      absl::StrAppendFormat(&out,
                            "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.4g</text>\n",
                            X(tick), X(tick), kTop, kTop + kPlotHeight, X(tick),
                            kTop + kPlotHeight + 15, tick);
    }
    for (const double tick : ChartTicks(ys_.low, ys_.high, y_.scale)) {
      absl::StrAppendFormat(&out,
                            "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
                            kLeft, kWidth - kRight, Y(tick), Y(tick), kLeft - 5, Y(tick) + 4, tick);
    }
    return out;
  }

 private:
  static double Share(double value, const Range& range, AxisScale scale) {
    const double low = Transformed(range.low, scale);
    return (Transformed(value, scale) - low) / (Transformed(range.high, scale) - low);
  }

  const ChartAxis& x_;
  const ChartAxis& y_;
  Range xs_;
  Range ys_;
};

std::string Line(const ChartSeries& series, const Frame& frame) {
  std::string points;
  for (const ChartPoint& point : series.points) {
    absl::StrAppendFormat(&points, "%.1f,%.1f ", frame.X(point.x), frame.Y(point.y));
  }
  if (points.empty()) {
    return "";
  }
  points.pop_back();
  return absl::StrFormat(
      "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"%s points=\"%s\"/>\n",
      ChartColor(series.color),
      series.stroke == ChartStroke::kDashed ? " stroke-dasharray=\"5 4\"" : "", points);
}

std::string Legend(const std::vector<ChartSeries>& series) {
  std::string out;
  constexpr double kColumn = (kWidth - kLeft - kRight) / kLegendColumns;
  for (size_t i = 0; i < series.size(); ++i) {
    const double x = kLeft + static_cast<double>(i % kLegendColumns) * kColumn;
    const double y =
        kTop + kPlotHeight + kBelow + static_cast<double>(i / kLegendColumns) * kLegendLine;
    absl::StrAppendFormat(
        &out,
        "<line stroke=\"%s\" stroke-width=\"3\"%s x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
        "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
        ChartColor(series[i].color),
        series[i].stroke == ChartStroke::kDashed ? " stroke-dasharray=\"5 4\"" : "", x, x + 18,
        y + 4, y + 4, x + 23, y + 8, EscapeHtml(series[i].label));
  }
  return out;
}

}  // namespace

std::string ChartColor(int i) {
  static constexpr std::array kColors = {"#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd",
                                         "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22"};
  return kColors[static_cast<size_t>(i) % kColors.size()];
}

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::vector<double> ChartTicks(double low, double high, AxisScale scale) {
  CHECK_LT(low, high);
  std::vector<double> ticks;
  if (scale == AxisScale::kLog) {
    CHECK_GT(low, 0);
    const bool dense = std::log10(high / low) < 2;
    for (double exponent = std::floor(std::log10(low)); exponent <= std::log10(high); ++exponent) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double tick = factor * std::pow(10, exponent);
        if (tick >= low && tick <= high && (dense || factor == 1)) {
          ticks.push_back(tick);
        }
      }
    }
    return ticks;
  }
  const double rough = (high - low) / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double step = power * (rough / power > 5   ? 10
                               : rough / power > 2 ? 5
                               : rough / power > 1 ? 2
                                                   : 1);
  // At most ten steps fit. Counted, as a large tick need not change when one is added to it.
  const double first = std::ceil(low / step);
  for (int i = 0; i <= 10 && (first + i) * step <= high; ++i) {
    ticks.push_back((first + i) * step);
  }
  return ticks;
}

std::string LineChart(const std::string& title, const ChartAxis& x, const ChartAxis& y,
                      const std::vector<ChartSeries>& series) {
  std::vector<ChartSeries> drawn = series;
  Range xs;
  Range ys;
  for (ChartSeries& one : drawn) {
    std::erase_if(one.points, [&](const ChartPoint& point) {
      return !IsDrawable(point.x, x.scale) || !IsDrawable(point.y, y.scale);
    });
    for (const ChartPoint& point : one.points) {
      xs.Add(point.x);
      ys.Add(point.y);
    }
  }
  std::erase_if(drawn, [](const ChartSeries& one) { return one.points.empty(); });
  const size_t legend_lines = (drawn.size() + kLegendColumns - 1) / kLegendColumns;
  const double height =
      kTop + kPlotHeight + kBelow + static_cast<double>(legend_lines) * kLegendLine + 4;
  std::string out = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" role=\"img\">\n"
      "<text class=\"title\" x=\"%.1f\" y=\"16\">%s</text>\n",
      kWidth, height, kWidth, height, kLeft, EscapeHtml(title));
  if (drawn.empty()) {
    absl::StrAppendFormat(&out, "<text x=\"%.1f\" y=\"%.1f\">nothing was measured</text>\n</svg>\n",
                          kLeft, kTop + 20);
    return out;
  }
  const Frame frame(x, y, Widened(xs, x.scale), Widened(ys, y.scale));
  absl::StrAppend(&out, frame.Grid());
  for (const ChartSeries& one : drawn) {
    absl::StrAppend(&out, Line(one, frame));
  }
  absl::StrAppendFormat(&out,
                        "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n"
                        "<text transform=\"translate(14 %.1f) rotate(-90)\" "
                        "text-anchor=\"middle\">%s</text>\n",
                        (kLeft + kWidth - kRight) / 2, kTop + kPlotHeight + 32, EscapeHtml(x.label),
                        kTop + kPlotHeight / 2, EscapeHtml(y.label));
  absl::StrAppend(&out, Legend(drawn), "</svg>\n");
  return out;
}

}  // namespace panthera
