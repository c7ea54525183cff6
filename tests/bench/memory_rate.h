#ifndef PANTHERA_TESTS_BENCH_MEMORY_RATE_H_
#define PANTHERA_TESTS_BENCH_MEMORY_RATE_H_

namespace panthera::bench {

// The bytes per second at which all threads together read and write memory that no cache holds,
// measured for a fraction of a second with the triad a = b + s c (McCalpin, "Memory bandwidth and
// machine balance in current high performance computers", 1995): three arrays, the best of several
// repetitions. What an op's rate is compared with.
double MeasureMemoryRate();

}  // namespace panthera::bench

#endif  // PANTHERA_TESTS_BENCH_MEMORY_RATE_H_
