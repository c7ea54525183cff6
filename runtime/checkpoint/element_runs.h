#ifndef PANTHERA_RUNTIME_CHECKPOINT_ELEMENT_RUNS_H_
#define PANTHERA_RUNTIME_CHECKPOINT_ELEMENT_RUNS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "runtime/params/element_map.h"

namespace panthera {

// Which elements of a row-major tensor a piece holds: `count` runs of `run` consecutive elements,
// the first beginning at element `begin`, each `stride` elements after the one before. A shard of
// whole rows is one run; a slice of columns is one run per row. An element's *position* is its
// place in the piece when the runs are packed one after the other.
struct ElementRuns {
  int64_t begin = 0;
  int64_t run = 0;
  int64_t stride = 0;  // 0 if count is 1
  int64_t count = 1;

  static ElementRuns Contiguous(int64_t begin, int64_t elements) { return {begin, elements, 0, 1}; }

  int64_t elements() const { return run * count; }
  // One past the last element.
  int64_t end() const { return begin + (count - 1) * stride + run; }
  friend bool operator==(const ElementRuns& a, const ElementRuns& b) = default;
};

// Where the elements [first, first + elements) of a slice lie in the whole tensor: one behind the
// other, the result's runs hold them in their order. A part of a first row, whole rows and a part
// of a last row are up to three of them.
std::vector<ElementRuns> RunsOf(const ElementMap& slice, int64_t first, int64_t elements);

// kDataLoss unless the runs hold at least one element, do not overlap and lie in a tensor of
// `tensor_elements`.
absl::Status CheckRuns(const ElementRuns& runs, int64_t tensor_elements);

// Elements [element, element + elements) of the tensor, at [position, position + elements) of the
// piece.
struct RunPart {
  int64_t element = 0;
  int64_t position = 0;
  int64_t elements = 0;
};
using RunVisitor = absl::FunctionRef<absl::Status(const RunPart&)>;

// Visits the parts of runs that lie at positions [begin, end), in order, until one fails.
absl::Status ForEachRun(const ElementRuns& runs, int64_t position_begin, int64_t position_end,
                        RunVisitor visit);

// Visits the parts of runs that lie among the tensor's elements [begin, end), in order, until one
// fails.
absl::Status ForEachOverlap(const ElementRuns& runs, int64_t element_begin, int64_t element_end,
                            RunVisitor visit);

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_CHECKPOINT_ELEMENT_RUNS_H_
