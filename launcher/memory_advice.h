#ifndef PANTHERA_LAUNCHER_MEMORY_ADVICE_H_
#define PANTHERA_LAUNCHER_MEMORY_ADVICE_H_

#include <cstdint>
#include <string>

#include "launcher/run_options.h"
#include "runtime/device/device.h"

namespace panthera {

// Lines for a user whose run needs more than `memory_bytes` per rank: changes of the configuration
// that were planned in turn, what each needs, and which of them fit. First what costs time alone
// (smaller micro-batches, recomputation, saves from no copy); if that is not enough, storage with
// fewer bits, marked "(changes rounding)", and more ranks or more of them that share each layer
// (parallel.tensor), which need no such change where they suffice. Keeps the global batch: changes
// without the mark compute the same sums, at most in another order or of terms that ranks round
// before they send them.
std::string AdviseForMemory(const RunOptions& options, int ranks, Device target,
                            int64_t memory_bytes);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_MEMORY_ADVICE_H_
