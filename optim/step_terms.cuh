// What kernels that update weights have in common with those that decide steps.
#ifndef PANTHERA_OPTIM_STEP_TERMS_CUH_
#define PANTHERA_OPTIM_STEP_TERMS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "optim/optimizer.h"
#include "optim/segment_batch.cuh"
#include "optim/update_rules.h"
#include "optim/weight_access.cuh"

namespace panthera::cuda {

// out = the elements [first, first + kPack).
template <typename T, int kPack>
__device__ void LoadFloats(const T* memory, int64_t first, float (&out)[kPack]) {
  const auto pack = Elements<T, kPack>::Load(memory, first);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    out[i] = static_cast<float>(pack.values[i]);
  }
}

// Stores them as state.
template <typename T, int kPack>
__device__ void StoreStates(const float (&in)[kPack], T* memory, int64_t first) {
  Elements<T, kPack> pack;
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    pack.values[i] = static_cast<T>(FlushTiny(in[i]));
  }
  pack.Store(memory, first);
}

__device__ inline float ScaleOrOne(const float* scale) { return scale != nullptr ? *scale : 1.0F; }

// What StepInput says of a block.
struct BlockPart {
  bool is_left_out;  // by StepInput::left_out
  bool is_unseen;    // by StepInput::rows

  __device__ bool moves() const { return !is_left_out && !is_unseen; }
  __device__ bool folds(LazyRows lazy_rows) const {
    return !is_left_out && !(is_unseen && lazy_rows == LazyRows::kChangeAndState);
  }
};

__device__ inline BlockPart PartOf(const uint8_t* left_out, const uint8_t* rows,
                                   const SegmentBatch& batch, const KernelBlock& block) {
  return {IsLeftOut(left_out, *block.segment), IsUnseen(rows, batch, block)};
}

// Weights shrink by `factor` towards `centre`.
struct Shrink {
  float factor = 1;
  float centre = 0;

  __device__ bool changes() const { return factor != 1; }
  __device__ float Of(float value) const {
    return changes() ? ShrinkTowards(centre, factor, value) : value;
  }

  template <int kPack>
  __device__ void Apply(float (&theta)[kPack]) const {
    if (!changes()) {
      return;
    }
#pragma unroll
    for (float& value : theta) {
      value = ShrinkTowards(centre, factor, value);
    }
  }
};

__device__ inline Shrink ShrinkBy(float factor, const KernelSegment& segment) {
  return {factor, segment.kind == ParamKind::kGain ? 1.0F : 0.0F};
}
// By StepInput::shrinks, which may be null.
__device__ inline Shrink ShrinkOf(const int32_t* shrinks, double ratio,
                                  const KernelSegment& segment) {
  return ShrinkBy(shrinks != nullptr ? ShrinkFactor(ratio, shrinks[segment.param]) : 1.0F, segment);
}

// TigerUpdate and what it needs of StepInput, in the memory of the GPU.
template <typename State>
struct TigerTerms {
  State* momentum;
  const float* gradient;  // may be null
  const float* scale;     // of the gradient; may be null
  double beta;
  const double* param_sums;
  const double* row_squares;  // null where no row has a rate of its own
  const int32_t* shrinks;     // may be null
  double shrink_ratio;
  double learning_rate;
  LazyRows lazy_rows;

  __device__ bool Folds(const BlockPart& part) const {
    return gradient != nullptr && part.folds(lazy_rows);
  }
  __device__ float Take() const { return TakeOfScaled(beta, ScaleOrOne(scale)); }
  __device__ float Rate(const KernelSegment& segment, const KernelBlock& block,
                        int64_t index) const {
    const bool by_row = row_squares != nullptr;
    return TigerRate(segment.kind, learning_rate,
                     by_row ? row_squares[index] : param_sums[segment.param],
                     by_row ? block.elements : segment.param_elements);
  }

  // direction: the momentum before, then after. Storing it keeps its sign: rounding does, and no
  // number that is not flushed becomes 0.
  template <int kPack>
  __device__ void Fold(float take, const float (&g)[kPack], float (&direction)[kPack]) const {
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      direction[i] = FlushTiny(Blend(static_cast<float>(beta), direction[i], take, g[i]));
    }
  }
};

template <typename State>
TigerTerms<State> TigerTermsOf(const TigerUpdate& update, const StepInput& input) {
  return {.momentum = update.momentum.data<State>(),
          .gradient = DataOrNull<float>(update.gradient),
          .scale = DataOrNull<float>(input.gradient_scale),
          .beta = update.beta,
          .param_sums = update.param_sums.data<double>(),
          .row_squares = DataOrNull<double>(update.row_squares),
          .shrinks = DataOrNull<int32_t>(input.shrinks),
          .shrink_ratio = update.shrink_ratio,
          .learning_rate = input.learning_rate,
          .lazy_rows = update.lazy_rows};
}

}  // namespace panthera::cuda

#endif  // PANTHERA_OPTIM_STEP_TERMS_CUH_
