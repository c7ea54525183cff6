#ifndef PANTHERA_LAUNCHER_LINE_CHART_H_
#define PANTHERA_LAUNCHER_LINE_CHART_H_

#include <cstdint>
#include <string>
#include <vector>

namespace panthera {

enum class AxisScale : uint8_t { kLinear, kLog };

struct ChartAxis {
  std::string label;
  AxisScale scale = AxisScale::kLinear;
};

struct ChartPoint {
  double x = 0;
  double y = 0;
};

enum class ChartStroke : uint8_t { kSolid, kDashed };

struct ChartSeries {
  std::string label;
  std::vector<ChartPoint> points;
  int color = 0;  // of ChartColor
  ChartStroke stroke = ChartStroke::kSolid;
};

// The i-th of a few colours that are easy to tell apart, "#rrggbb"; then again from the first.
std::string ChartColor(int i);

// `text` as it may stand between tags and in attributes.
std::string EscapeHtml(const std::string& text);

// Where ticks of an axis from `low` to `high` stand, ascending, all of them inside: about five
// round numbers, or powers of ten and, where these are few, twice and five times them. `low` must
// be below `high`, and above 0 on a logarithmic axis.
std::vector<double> ChartTicks(double low, double high, AxisScale scale);

// An SVG element with axes, a grid, one line for each series, and what the colours mean. Points
// that are not finite, or not above 0 on a logarithmic axis, are left out; without any point it
// says so.
std::string LineChart(const std::string& title, const ChartAxis& x, const ChartAxis& y,
                      const std::vector<ChartSeries>& series);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_LINE_CHART_H_
