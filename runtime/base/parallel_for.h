#ifndef PANTHERA_RUNTIME_BASE_PARALLEL_FOR_H_
#define PANTHERA_RUNTIME_BASE_PARALLEL_FOR_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace panthera {

// Calls body(begin, end) on disjoint ranges that cover [0, count), on up to the number of threads
// that OpenMP allows the caller (OMP_NUM_THREADS), each range at least `grain` long except the
// last. Returns when all are done. Ranges depend on the thread count, so a body must not let its
// result depend on where a range begins. This is the only loop over threads in the program; it uses
// the pool that oneDNN uses. A call from inside a body runs on the calling thread.
void ParallelFor(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body);

// The largest number of threads among whom a ParallelFor called here would share its range: how
// many slices of scratch its bodies need.
int64_t MaxThreads();

}  // namespace panthera

#endif  // PANTHERA_RUNTIME_BASE_PARALLEL_FOR_H_
