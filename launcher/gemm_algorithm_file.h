#ifndef PANTHERA_LAUNCHER_GEMM_ALGORITHM_FILE_H_
#define PANTHERA_LAUNCHER_GEMM_ALGORITHM_FILE_H_

#include <span>
#include <string>

#include "absl/status/statusor.h"

#include "runtime/checkpoint/file.h"
#include "runtime/comm/host_group.h"
#include "runtime/math/context.h"
#include "runtime/math/gemm.h"

namespace panthera {

// In a run directory: by which algorithms cuBLASLt multiplies. They decide the bits of a run on
// GPUs, so a resumed run takes them from here.
inline constexpr char kGemmAlgorithmFileName[] = "gemm_algorithms.json";

// Settles the algorithms of each rank's `products`: those of the file in `run_directory`, unless it
// is of another kind of GPU or version of cuBLASLt; of what it lacks, as on another mesh, the
// fastest that rank 0 measures; and of forms that rank 0 does not have, because layers are not
// shared evenly, the fastest that the first rank measures that has them. Returns the contents of
// the file that belongs there, "" where `ctx` is not of a GPU; writes nothing. Collective; every
// rank gets the same status. Blocks the host for some seconds.
absl::StatusOr<std::string> SettleGemmAlgorithms(FileSystem& files, HostGroup& host, Context& ctx,
                                                 std::span<const Product> products,
                                                 const std::string& run_directory);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_GEMM_ALGORITHM_FILE_H_
