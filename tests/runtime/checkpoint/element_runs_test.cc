#include "runtime/checkpoint/element_runs.h"

#include <vector>

#include <gtest/gtest.h>

namespace panthera {
namespace {

// (element, position) of every element that a visit reports.
using Places = std::vector<std::pair<int64_t, int64_t>>;

Places Positions(const ElementRuns& runs, int64_t begin, int64_t end) {
  Places places;
  const auto visit = [&places](const RunPart& part) {
    for (int64_t i = 0; i < part.elements; ++i) {
      places.emplace_back(part.element + i, part.position + i);
    }
    return absl::OkStatus();
  };
  EXPECT_TRUE(ForEachRun(runs, begin, end, visit).ok());
  return places;
}

Places Overlaps(const ElementRuns& runs, int64_t begin, int64_t end) {
  Places places;
  const auto visit = [&places](const RunPart& part) {
    for (int64_t i = 0; i < part.elements; ++i) {
      places.emplace_back(part.element + i, part.position + i);
    }
    return absl::OkStatus();
  };
  EXPECT_TRUE(ForEachOverlap(runs, begin, end, visit).ok());
  return places;
}

TEST(ElementRunsTest, BothWalksAgreeWithListingEveryElement) {
  for (const ElementRuns& runs :
       {ElementRuns{5, 7, 0, 1}, ElementRuns{2, 3, 10, 4}, ElementRuns{0, 4, 4, 3}}) {
    Places all;
    for (int64_t i = 0; i < runs.count; ++i) {
      for (int64_t j = 0; j < runs.run; ++j) {
        all.emplace_back(runs.begin + i * runs.stride + j, i * runs.run + j);
      }
    }
    for (int64_t begin = 0; begin <= 40; ++begin) {
      for (int64_t end = begin; end <= 40; ++end) {
        Places by_element;
        Places by_position;
        for (const auto& [element, position] : all) {
          if (element >= begin && element < end) {
            by_element.emplace_back(element, position);
          }
          if (position >= begin && position < end) {
            by_position.emplace_back(element, position);
          }
        }
        EXPECT_EQ(Overlaps(runs, begin, end), by_element) << begin << " " << end;
        if (end <= runs.elements()) {
          EXPECT_EQ(Positions(runs, begin, end), by_position) << begin << " " << end;
        }
      }
    }
  }
}

TEST(ElementRunsTest, AFailedVisitEndsTheWalk) {
  int visits = 0;
  const auto fail_at_second = [&visits](const RunPart&) {
    return ++visits == 2 ? absl::AbortedError("second") : absl::OkStatus();
  };

  const absl::Status status = ForEachRun({0, 2, 5, 4}, 0, 8, fail_at_second);

  EXPECT_EQ(status.message(), "second");
  EXPECT_EQ(visits, 2);
}

TEST(ElementRunsTest, RunsThatLeaveTheTensorOrOverlapAreRefused) {
  EXPECT_TRUE(CheckRuns({0, 10, 0, 1}, 10).ok());
  EXPECT_TRUE(CheckRuns({2, 3, 4, 2}, 9).ok());
  constexpr int64_t kHuge = int64_t{1} << 62;
  for (const ElementRuns& runs :
       {ElementRuns{1, 10, 0, 1}, ElementRuns{-1, 3, 0, 1}, ElementRuns{0, 0, 0, 1},
        ElementRuns{0, 3, 2, 2}, ElementRuns{2, 3, 6, 2}, ElementRuns{0, 1, 0, 0},
        ElementRuns{0, 1, 3, 1}, ElementRuns{0, kHuge, 0, 1}, ElementRuns{0, 1, kHuge, 2},
        ElementRuns{0, 1, 2, kHuge}, ElementRuns{kHuge, kHuge, kHuge, kHuge}}) {
    EXPECT_TRUE(absl::IsDataLoss(CheckRuns(runs, 10)))
        << runs.begin << " " << runs.run << " " << runs.stride << " " << runs.count;
  }
}

TEST(ElementRunsTest, AnyPartOfASliceIsUpToThreeRunsThatListItsElements) {
  for (const ElementMap& slice : {ElementMap{7, 20, 0}, ElementMap{3, 4, 9}, ElementMap{2, 1, 5}}) {
    for (int64_t first = 0; first < 20; ++first) {
      for (int64_t end = first + 1; end <= 20; ++end) {
        const std::vector<ElementRuns> runs = RunsOf(slice, first, end - first);
        EXPECT_LE(runs.size(), slice.is_contiguous() ? 1U : 3U);
        Places places;
        for (const ElementRuns& part : runs) {
          EXPECT_TRUE(CheckRuns(part, 110).ok()) << first << " " << end;
          const auto position = static_cast<int64_t>(places.size());
          for (const auto& [element, place] : Positions(part, 0, part.elements())) {
            places.emplace_back(element, position + place);
          }
        }
        Places expected;
        for (int64_t i = first; i < end; ++i) {
          const int64_t row = slice.stride == 0 ? 0 : i / slice.run;
          expected.emplace_back(slice.begin + row * slice.stride + i - row * slice.run, i - first);
        }
        EXPECT_EQ(places, expected) << first << " " << end;
      }
    }
  }
}

}  // namespace
}  // namespace panthera
