#include "launcher/line_chart.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>

namespace panthera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ChartTicksTest, AreRoundNumbersInsideTheRange) {
  EXPECT_THAT(ChartTicks(0, 1200, AxisScale::kLinear), ElementsAre(0, 500, 1000));
  EXPECT_THAT(ChartTicks(4.4, 5.6, AxisScale::kLinear),
              ElementsAre(::testing::DoubleEq(4.5), 5, 5.5));
  EXPECT_THAT(ChartTicks(-1, 1, AxisScale::kLinear), ElementsAre(-1, -0.5, 0, 0.5, 1));
  EXPECT_THAT(ChartTicks(0.02, 150, AxisScale::kLog),
              ElementsAre(::testing::DoubleEq(0.1), 1, 10, 100));
  EXPECT_THAT(ChartTicks(3, 60, AxisScale::kLog), ElementsAre(5, 10, 20, 50));
}

TEST(ChartTicksTest, EndWhereStepsAreTooSmallToBeTaken) {
  const double high = std::nextafter(1e30, 2e30);
  EXPECT_LE(ChartTicks(1e30, high, AxisScale::kLinear).size(), 11U);
  EXPECT_LE(ChartTicks(-1e308, 1e308, AxisScale::kLinear).size(), 11U);
}

// The frame is 560 pixels wide from 64 and 300 high from 28, with y upwards.
TEST(LineChartTest, PutsPointsWhereTheirAxesSay) {
  const std::string linear =
      LineChart("t", {"x"}, {"y"}, {{"a", {{0, 0}, {5, 1}, {10, 4}}, 1, ChartStroke::kSolid}});
  EXPECT_THAT(linear, HasSubstr("points=\"64.0,328.0 344.0,253.0 624.0,28.0\""));
  EXPECT_THAT(linear, HasSubstr(ChartColor(1)));
  EXPECT_THAT(linear, Not(HasSubstr("dasharray")));

  const std::string logarithmic =
      LineChart("t", {"x", AxisScale::kLog}, {"y", AxisScale::kLog},
                {{"a", {{1, 100}, {10, 10}, {100, 0.01}}, 0, ChartStroke::kDashed}});
  EXPECT_THAT(logarithmic, HasSubstr("points=\"64.0,28.0 344.0,103.0 624.0,328.0\""));
  EXPECT_THAT(logarithmic, HasSubstr("dasharray"));
}

TEST(LineChartTest, LeavesOutWhatCannotBeDrawn) {
  const double nan = std::nan("");
  const double infinity = std::numeric_limits<double>::infinity();
  const std::string chart = LineChart(
      "t", {"x"}, {"y", AxisScale::kLog},
      {{"a",
        {{0, 1}, {1, nan}, {2, infinity}, {3, 0}, {4, -1}, {5, 10}, {6, 1e305}, {7, 5e-324}},
        0},
       {"never", {{0, nan}}, 1}});
  EXPECT_THAT(chart, HasSubstr("points=\"64.0,328.0 624.0,28.0\""));
  EXPECT_THAT(chart, Not(HasSubstr("never")));
  EXPECT_THAT(LineChart("t", {"x"}, {"y"}, {}), HasSubstr("nothing was measured"));
}

TEST(LineChartTest, OneValueOnlyStandsInTheMiddle) {
  EXPECT_THAT(LineChart("t", {"x"}, {"y"}, {{"a", {{3, 7}, {3, 7}}, 0}}),
              HasSubstr("points=\"344.0,178.0 344.0,178.0\""));
  for (const double value : {1e17, -1e300, 1e300}) {
    EXPECT_THAT(LineChart("t", {"x"}, {"y"}, {{"a", {{value, value}}, 0}}),
                HasSubstr("points=\"344.0,178.0\""));
  }
  for (const double value : {1e-300, 1e300}) {
    EXPECT_THAT(LineChart("t", {"x", AxisScale::kLog}, {"y", AxisScale::kLog},
                          {{"a", {{value, value}}, 0}}),
                HasSubstr("points=\"344.0,178.0\""));
  }
}

TEST(LineChartTest, NamesCannotBecomeMarkup) {
  const std::string chart =
      LineChart("<t>", {"a&b"}, {"\"y\""}, {{"<script>", {{0, 0}, {1, 1}}, 0}});
  EXPECT_THAT(chart, HasSubstr("&lt;t&gt;"));
  EXPECT_THAT(chart, HasSubstr("a&amp;b"));
  EXPECT_THAT(chart, HasSubstr("&quot;y&quot;"));
  EXPECT_THAT(chart, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(chart, Not(HasSubstr("<script>")));
}

}  // namespace
}  // namespace panthera
