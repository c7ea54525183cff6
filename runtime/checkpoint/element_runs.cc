#include "runtime/checkpoint/element_runs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace panthera {

std::vector<ElementRuns> RunsOf(const ElementMap& slice, int64_t first, int64_t elements) {
  if (slice.is_contiguous()) {
    return {ElementRuns::Contiguous(slice(first), elements)};
  }
  std::vector<ElementRuns> runs;
  const auto add_part = [&](int64_t count) {
    if (count > 0) {
      runs.push_back(ElementRuns::Contiguous(slice(first), count));
      first += count;
      elements -= count;
    }
  };
  const int64_t in_row = first % slice.run;
  add_part(in_row == 0 ? 0 : std::min(slice.run - in_row, elements));
  const int64_t rows = elements / slice.run;
  if (rows > 1) {
    runs.push_back(
        {.begin = slice(first), .run = slice.run, .stride = slice.stride, .count = rows});
    first += rows * slice.run;
    elements -= rows * slice.run;
  } else {
    add_part(rows * slice.run);
  }
  add_part(elements);
  return runs;
}

absl::Status CheckRuns(const ElementRuns& runs, int64_t tensor_elements) {
  const bool sizes_fit = runs.begin >= 0 && runs.begin <= tensor_elements && runs.run >= 1 &&
                         runs.run <= tensor_elements && runs.count >= 1 &&
                         runs.count <= tensor_elements;
  const bool strides_fit = runs.count == 1 ? runs.stride == 0
                                           : runs.stride >= runs.run &&
                                                 runs.stride <= tensor_elements / (runs.count - 1);
  // Not by end(), which can overflow before the runs are known to fit.
  if (!sizes_fit || !strides_fit ||
      runs.begin > tensor_elements - runs.run - (runs.count - 1) * runs.stride) {
    return absl::DataLossError(absl::StrCat(
        runs.count, " runs of ", runs.run, " elements from element ", runs.begin, " with stride ",
        runs.stride, " do not lie in a tensor of ", tensor_elements, " elements"));
  }
  return absl::OkStatus();
}

absl::Status ForEachRun(const ElementRuns& runs, int64_t position_begin, int64_t position_end,
                        RunVisitor visit) {
  CHECK_GE(position_begin, 0);
  CHECK_LE(position_end, runs.elements());
  for (int64_t position = position_begin; position < position_end;) {
    const int64_t index = position / runs.run;
    const int64_t within = position - index * runs.run;
    const int64_t elements = std::min(runs.run - within, position_end - position);
    RETURN_IF_ERROR(visit({runs.begin + index * runs.stride + within, position, elements}));
    position += elements;
  }
  return absl::OkStatus();
}

absl::Status ForEachOverlap(const ElementRuns& runs, int64_t element_begin, int64_t element_end,
                            RunVisitor visit) {
  int64_t index = 0;
  if (runs.count > 1 && element_begin > runs.begin) {
    index = (element_begin - runs.begin) / runs.stride;
  }
  for (; index < runs.count; ++index) {
    const int64_t run_begin = runs.begin + index * runs.stride;
    if (run_begin >= element_end) {
      break;
    }
    const int64_t begin = std::max(run_begin, element_begin);
    const int64_t end = std::min(run_begin + runs.run, element_end);
    if (begin < end) {
      RETURN_IF_ERROR(visit({begin, index * runs.run + begin - run_begin, end - begin}));
    }
  }
  return absl::OkStatus();
}

}  // namespace panthera
