#include "launcher/gemm_algorithm_file.h"

#include "absl/strings/str_cat.h"

#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/math/gemm_algorithms.h"
#include "runtime/math/gemm_tuning.h"

namespace panthera {
namespace {

// What rank 0 does.
absl::StatusOr<std::string> ReadOrMeasure(FileSystem& files, Context& ctx,
                                          std::span<const Product> products,
                                          const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(files, path);
  if (text.ok()) {
    const absl::StatusOr<GemmAlgorithms> stored = ParseGemmAlgorithms(*text);
    if (!stored.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": ", stored.status().message(),
                       "; remove the file to have the products measured again"));
    }
    const GemmAlgorithmLibrary here = ctx.gemm().library();
    if (stored->library() == here) {
      return *text;
    }
    LOG(INFO) << path << " is for cuBLASLt " << stored->library().version << " on "
              << stored->library().gpu << "; products are measured for " << here.version << " on "
              << here.gpu << ", and the run does not keep its bits";
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  return GemmAlgorithmsJson(TuneProducts(ctx, products));
}

}  // namespace

absl::StatusOr<std::string> SettleGemmAlgorithms(FileSystem& files, HostGroup& host, Context& ctx,
                                                 std::span<const Product> products,
                                                 const std::string& run_directory) {
  if (!ctx.device().is_cuda()) {
    return std::string();
  }
  absl::StatusOr<std::string> text = std::string();
  if (host.rank() == 0) {
    text = ReadOrMeasure(files, ctx, products,
                         absl::StrCat(run_directory, "/", kGemmAlgorithmFileName));
  }
  RETURN_IF_ERROR(Agree(host, text.status()));
  const std::string shared = host.Broadcast(*text, 0);
  ASSIGN_OR_RETURN(const GemmAlgorithms algorithms, ParseGemmAlgorithms(shared));
  RETURN_IF_ERROR(Agree(host, ctx.gemm().UseAlgorithms(algorithms)));
  return shared;
}

}  // namespace panthera
