// Between the files of the attention kernels: their arguments, and how each set is launched.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_KERNELS_CUH_
#define PANTHERA_MODEL_OPS_ATTENTION_KERNELS_CUH_

#include <cstdint>

#include "model/ops/attention_arguments.cuh"
#include "model/ops/attention_choice.h"
#include "runtime/base/dtype.h"
#include "runtime/device/cuda_device.h"
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

inline AttentionPlatform PlatformOf(Stream& stream, KernelChoice choice) {
  return {CapabilityOf(stream.device()), HopperAttention(), choice};
}

// kTensorCores: attention_forward.cu. attention_query_gradient.cu: delta and dq.
// attention_key_gradient.cu: then dk and dv.
void LaunchForward(Stream& stream, const ForwardArguments<BF16>& arguments, int64_t batch);
void LaunchQueryGradient(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch);
void LaunchKeyGradient(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch);

// kHopper: the same, with other last bits (attention_*_hopper.cu).
void LaunchHopperForward(Stream& stream, const ForwardArguments<BF16>& arguments, int64_t batch);
void LaunchHopperQueryGradient(Stream& stream, const BackwardArguments<BF16>& arguments,
                               int64_t batch);
void LaunchHopperKeyGradient(Stream& stream, const BackwardArguments<BF16>& arguments,
                             int64_t batch);

// kRows: attention_rows.cu, sums by fp32 FMAs.
template <typename T>
void LaunchForwardRows(Stream& stream, const ForwardArguments<T>& arguments, int64_t batch);
// First delta and dq, then dk and dv.
template <typename T>
void LaunchQueryGradientRows(Stream& stream, const BackwardArguments<T>& arguments, int64_t batch);
template <typename T>
void LaunchKeyGradientRows(Stream& stream, const BackwardArguments<T>& arguments, int64_t batch);

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_KERNELS_CUH_
