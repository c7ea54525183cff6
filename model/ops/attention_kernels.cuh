// Between the files of the attention kernels: their arguments, and which kernels take which heads.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_KERNELS_CUH_
#define PANTHERA_MODEL_OPS_ATTENTION_KERNELS_CUH_

#include <algorithm>
#include <cstdint>
#include <span>

#include "model/ops/attention_arguments.cuh"
#include "model/ops/heads.h"
#include "runtime/base/dtype.h"
#include "runtime/device/stream.h"

namespace panthera::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;

template <typename T>
struct ForwardArguments {
  AttentionView<T> attention;
  HeadsView<T> out;
  float* lse;
};

template <typename T>
struct BackwardArguments {
  AttentionView<T> attention;
  HeadsView<const T> dout;
  HeadsView<const T> out;
  const float* lse;
  float* delta;
  HeadsView<T> dq;
  HeadsView<T> dk;
  HeadsView<T> dv;
};

// Whether the kernels for tensor cores can read and write these heads, 16 bytes at a time.
inline bool FitsTensorCores(const Heads& heads) {
  constexpr int64_t kBytes = 16;
  return heads.dtype() == DType::kBF16 && (heads.width == 64 || heads.width == 128) &&
         heads.row_stride() * SizeOf(DType::kBF16) % kBytes == 0 &&
         reinterpret_cast<uintptr_t>(heads.at<BF16>(0, 0, 0)) % kBytes == 0;
}
inline bool FitsTensorCores(std::span<const AttentionBand> bands) {
  return std::all_of(bands.begin(), bands.end(), [](const AttentionBand& band) {
    return FitsTensorCores(band.q) && FitsTensorCores(band.k);
  });
}

// attention_query_gradient.cu: delta and dq. attention_key_gradient.cu: then dk and dv. For heads
// that fit the tensor cores.
void LaunchQueryGradient(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch);
void LaunchKeyGradient(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch);

// attention_rows.cu, for heads of any place and width and both float types: a warp per row, sums by
// fp32 FMAs.
template <typename T>
void LaunchForwardRows(Stream& stream, const ForwardArguments<T>& arguments, int64_t batch);
// First delta and dq, then dk and dv.
template <typename T>
void LaunchQueryGradientRows(Stream& stream, const BackwardArguments<T>& arguments, int64_t batch);
template <typename T>
void LaunchKeyGradientRows(Stream& stream, const BackwardArguments<T>& arguments, int64_t batch);

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_KERNELS_CUH_
