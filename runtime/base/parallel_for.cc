#include "runtime/base/parallel_for.h"

#include <omp.h>

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/shape.h"

namespace panthera {

int64_t MaxThreads() { return omp_in_parallel() != 0 ? 1 : omp_get_max_threads(); }

void ParallelFor(int64_t count, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> body) {
  CHECK_GE(grain, 1);
  const int64_t threads = std::min(MaxThreads(), CeilDiv(count, grain));
  if (threads <= 1) {
    if (count > 0) {
      body(0, count);
    }
    return;
  }
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const int64_t team = omp_get_num_threads();
    const int64_t member = omp_get_thread_num();
    const int64_t begin = count * member / team;
    const int64_t end = count * (member + 1) / team;
    if (begin < end) {
      body(begin, end);
    }
  }
}

}  // namespace panthera
