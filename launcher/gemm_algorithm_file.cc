#include "launcher/gemm_algorithm_file.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"

#include "runtime/base/log.h"
#include "runtime/base/status_macros.h"
#include "runtime/math/gemm_algorithms.h"
#include "runtime/math/gemm_tuning.h"

namespace panthera {
namespace {

// What the file holds for this GPU and library; nothing if there is none, or it is for others.
absl::StatusOr<GemmAlgorithms> ReadAlgorithms(FileSystem& files, const GemmAlgorithmLibrary& here,
                                              const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(files, path);
  if (absl::IsNotFound(text.status())) {
    return GemmAlgorithms(here);
  }
  RETURN_IF_ERROR(text.status());
  absl::StatusOr<GemmAlgorithms> stored = ParseGemmAlgorithms(*text);
  if (!stored.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": ", stored.status().message(),
                     "; remove the file to have the products measured again"));
  }
  if (stored->library() == here) {
    return stored;
  }
  LOG(INFO) << path << " is for cuBLASLt " << stored->library().version << " on "
            << stored->library().gpu << "; products are measured for " << here.version << " on "
            << here.gpu << ", and the run does not keep its bits";
  return GemmAlgorithms(here);
}

// Those of `products` that are not among `known`.
GemmAlgorithms MeasureOthers(Context& ctx, std::span<const Product> products,
                             const GemmAlgorithms& known) {
  std::vector<Product> others;
  std::copy_if(products.begin(), products.end(), std::back_inserter(others),
               [&](const Product& product) { return !known.Find(product).has_value(); });
  return others.empty() ? GemmAlgorithms(known.library()) : TuneProducts(ctx, others);
}

}  // namespace

absl::StatusOr<std::string> SettleGemmAlgorithms(FileSystem& files, HostGroup& host, Context& ctx,
                                                 std::span<const Product> products,
                                                 const std::string& run_directory) {
  if (!ctx.device().is_cuda()) {
    return std::string();
  }
  absl::StatusOr<GemmAlgorithms> first = GemmAlgorithms(ctx.gemm().library());
  if (host.rank() == 0) {
    first = ReadAlgorithms(files, ctx.gemm().library(),
                           absl::StrCat(run_directory, "/", kGemmAlgorithmFileName));
    if (first.ok()) {
      first->Add(MeasureOthers(ctx, products, *first));
    }
  }
  RETURN_IF_ERROR(Agree(host, first.status()));
  ASSIGN_OR_RETURN(GemmAlgorithms algorithms,
                   ParseGemmAlgorithms(host.Broadcast(GemmAlgorithmsJson(*first), 0)));
  // Before anything is measured for another library.
  RETURN_IF_ERROR(Agree(host, ctx.gemm().UseAlgorithms(algorithms)));
  const GemmAlgorithms own = MeasureOthers(ctx, products, algorithms);
  for (const std::string& text : host.AllGather(own.size() == 0 ? "" : GemmAlgorithmsJson(own))) {
    if (!text.empty()) {
      ASSIGN_OR_RETURN(const GemmAlgorithms its, ParseGemmAlgorithms(text));
      algorithms.Add(its);
    }
  }
  RETURN_IF_ERROR(Agree(host, ctx.gemm().UseAlgorithms(algorithms)));
  return GemmAlgorithmsJson(algorithms);
}

}  // namespace panthera
