// What the attention kernels are given, and which keys and queries meet.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_ARGUMENTS_CUH_
#define PANTHERA_MODEL_OPS_ATTENTION_ARGUMENTS_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>

#include "model/ops/attention.h"
#include "model/ops/attention_cuda.h"
#include "model/ops/heads.h"
#include "runtime/base/check.h"

namespace panthera::cuda {

// Heads, as kernels see them.
template <typename T>
struct HeadsView {
  T* first;  // element (0, 0, 0, 0)
  int stride;
  int tokens;
  int width;

  // Row 0 of head h of sequence b; row t follows t * stride elements later.
  __device__ T* Head(int b, int h) const {
    return first + static_cast<int64_t>(b) * tokens * stride + static_cast<int64_t>(h) * width;
  }
  __device__ T* Row(int b, int t, int h) const {
    return Head(b, h) + static_cast<int64_t>(t) * stride;
  }
};

template <typename T>
HeadsView<T> View(const Heads& heads) {
  CHECK_LE(heads.row_stride(), int64_t{std::numeric_limits<int32_t>::max()});
  return {.first = heads.at<std::remove_const_t<T>>(0, 0, 0),
          .stride = static_cast<int>(heads.row_stride()),
          .tokens = static_cast<int>(heads.tokens),
          .width = static_cast<int>(heads.width)};
}

// A rotary table [tokens, width / 2]; null: no rotation.
struct RotationView {
  const float* cos;
  const float* sin;
};

template <typename T>
struct BandView {
  HeadsView<const T> q;
  HeadsView<const T> k;
  RotationView q_rotation;
  RotationView k_rotation;
  // Keys at distances [begin, end) are seen; at most the number of keys.
  int begin;
  int end;
};

// Inputs and sizes of both passes.
template <typename T>
struct AttentionView {
  BandView<T> bands[kMostAttentionBands];
  int band_count;
  HeadsView<const T> v;
  int heads;
  int kv_heads;
  int queries;
  int keys;
  float scale;

  // The position of query row 0.
  __device__ int first_position() const { return keys - queries; }
};

// [begin, end), perhaps empty.
struct Range {
  int begin;
  int end;

  __device__ bool is_empty() const { return begin >= end; }
};

// [begin, begin + size), cut off at `end`.
__device__ inline Range RangeUpTo(int begin, int size, int end) {
  return {begin, begin + size < end ? begin + size : end};
}

// The keys that some query at one of the positions sees.
template <typename T>
__device__ Range VisibleKeys(const BandView<T>& band, Range positions) {
  const int first = positions.begin;
  return {first < band.end ? 0 : first - band.end + 1, positions.end - band.begin};
}

// The query rows that see some of the keys.
template <typename T>
__device__ Range SeeingQueries(const AttentionView<T>& attention, const BandView<T>& band,
                               Range keys) {
  const int begin = keys.begin + band.begin - attention.first_position();
  const int end = keys.end - 1 + band.end - attention.first_position();
  return {begin < 0 ? 0 : begin, end < attention.queries ? end : attention.queries};
}

// Whether a query sees a key that lies `distance` before it.
template <typename T>
__device__ bool Sees(const BandView<T>& band, int distance) {
  return static_cast<unsigned>(distance - band.begin) <
         static_cast<unsigned>(band.end - band.begin);
}

// How many of the pairs of a range of queries and one of keys see each other.
enum class Visibility : uint8_t { kNone, kSome, kAll };

template <typename T>
__device__ Visibility VisibilityOf(const BandView<T>& band, Range positions, Range keys) {
  const int nearest = positions.begin - (keys.end - 1);
  const int farthest = positions.end - 1 - keys.begin;
  if (positions.is_empty() || keys.is_empty() || farthest < band.begin || nearest >= band.end) {
    return Visibility::kNone;
  }
  return nearest >= band.begin && farthest < band.end ? Visibility::kAll : Visibility::kSome;
}

// Of arguments that fit together (attention.h). Aborts at sizes that kernels cannot count.
template <typename T>
AttentionView<T> View(std::span<const AttentionBand> bands, const Heads& v, const Heads& out,
                      float scale) {
  CHECK_LE(bands.size(), size_t{kMostAttentionBands});
  CHECK_LT(v.tokens, kMostAttentionKeys);
  const auto rotation = [](const std::optional<RotaryTable>& table) -> RotationView {
    if (!table.has_value()) {
      return {nullptr, nullptr};
    }
    return {table->cos.data<float>(), table->sin.data<float>()};
  };
  AttentionView<T> view{.bands = {},
                        .band_count = static_cast<int>(bands.size()),
                        .v = View<const T>(v),
                        .heads = static_cast<int>(out.heads),
                        .kv_heads = static_cast<int>(v.heads),
                        .queries = static_cast<int>(out.tokens),
                        .keys = static_cast<int>(v.tokens),
                        .scale = scale};
  for (size_t i = 0; i < bands.size(); ++i) {
    const AttentionBand& band = bands[i];
    view.bands[i] = {.q = View<const T>(band.q),
                     .k = View<const T>(band.k),
                     .q_rotation = rotation(band.q_rotation),
                     .k_rotation = rotation(band.k_rotation),
                     .begin = static_cast<int>(std::min(band.begin, v.tokens)),
                     .end = static_cast<int>(std::min(band.end, v.tokens))};
  }
  return view;
}

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_ARGUMENTS_CUH_
