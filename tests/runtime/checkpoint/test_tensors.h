#ifndef PANTHERA_TESTS_RUNTIME_CHECKPOINT_TEST_TENSORS_H_
#define PANTHERA_TESTS_RUNTIME_CHECKPOINT_TEST_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint.h"

namespace panthera::testing {

// A whole tensor with values of its own.
struct LogicalTensor {
  TensorDescription description;
  std::vector<std::byte> values;
};
// `seed` decides the values, which are finite.
LogicalTensor MakeTensor(const std::string& name, const Shape& shape, DType dtype, uint64_t seed);

// Matrices, vectors and a scalar of several types, one of them larger than a checksum block.
std::vector<LogicalTensor> ExampleTensors(uint64_t seed);

enum class Split {
  kRuns,     // rank r holds a run of elements, not cut at row ends
  kColumns,  // rank r holds columns of matrices, and runs of the others
};
enum class Fill { kValues, kZero };

// One rank's pieces of tensors and the memory under them.
class RankPieces {
 public:
  RankPieces(const std::vector<LogicalTensor>& tensors, int rank, int size, Split split, Fill fill);

  std::vector<TensorPiece>& pieces() { return pieces_; }

  // Counts as test failures what differs from the tensors' values.
  void ExpectValues(const std::vector<LogicalTensor>& tensors) const;

 private:
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
  std::vector<TensorPiece> pieces_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_CHECKPOINT_TEST_TENSORS_H_
