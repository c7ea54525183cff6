#ifndef PANTHERA_TESTS_BENCH_STATISTICS_H_
#define PANTHERA_TESTS_BENCH_STATISTICS_H_

#include <vector>

namespace panthera::bench {

// The number below which `share` of the values lie, between two of them linearly; at least one
// value.
double Quantile(std::vector<double> values, double share);

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_STATISTICS_H_
