// What every communicator and host group promises, and the sums on top of them, as cases that any
// world of ranks can run. Expected values are computed from rank numbers alone.
#ifndef PANTHERA_TESTS_RUNTIME_COMM_COMMUNICATOR_CONFORMANCE_H_
#define PANTHERA_TESTS_RUNTIME_COMM_COMMUNICATOR_CONFORMANCE_H_

#include <ostream>
#include <span>

#include "tests/support/rank_harness.h"

namespace panthera::testing {

struct ConformanceCase {
  const char* name;
  void (*run)(RankWorld& world);
};
inline std::ostream& operator<<(std::ostream& out, const ConformanceCase& conformance) {
  return out << conformance.name;
}

std::span<const ConformanceCase> ConformanceCases();

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_RUNTIME_COMM_COMMUNICATOR_CONFORMANCE_H_
