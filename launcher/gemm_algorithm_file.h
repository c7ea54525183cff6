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

// Settles the algorithms of `products` on all ranks: those of the file in `run_directory`, or,
// where there is none or it is of another kind of GPU or version of cuBLASLt, the fastest that rank
// 0 measures. Returns the contents of the file that belongs there, "" where `ctx` is not of a GPU;
// writes nothing. Collective; every rank gets the same status. Blocks the host for some seconds.
absl::StatusOr<std::string> SettleGemmAlgorithms(FileSystem& files, HostGroup& host, Context& ctx,
                                                 std::span<const Product> products,
                                                 const std::string& run_directory);

}  // namespace panthera

#endif  // PANTHERA_LAUNCHER_GEMM_ALGORITHM_FILE_H_
