// What every communicator and host group promises, and the sums on top of them, as cases that any
// world of ranks can run. Expected values are computed from rank numbers alone. Tensors lie on the
// world's device.
#ifndef PANTHERA_TESTS_RUNTIME_COMM_COMMUNICATOR_CONFORMANCE_H_
#define PANTHERA_TESTS_RUNTIME_COMM_COMMUNICATOR_CONFORMANCE_H_

#include <cstdint>
#include <ostream>
#include <vector>

#include "tests/support/rank_harness.h"

namespace panthera::testing {

struct ConformanceCase {
  // Cases that move host values need a communicator for host memory; the others run on any device.
  enum class Moves : uint8_t { kTensors, kHostValues };

  const char* name;
  void (*run)(RankWorld& world);
  Moves moves;
};
inline std::ostream& operator<<(std::ostream& out, const ConformanceCase& conformance) {
  return out << conformance.name;
}

std::vector<ConformanceCase> ConformanceCases();
std::vector<ConformanceCase> TensorConformanceCases();

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_COMM_COMMUNICATOR_CONFORMANCE_H_
