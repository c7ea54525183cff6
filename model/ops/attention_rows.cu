#include <cmath>
#include <cstdint>

#include "model/ops/attention_kernels.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kMostWidth = static_cast<int>(kMostAttentionWidth);

// A row of a head spread over a warp: lane l holds columns l, l + 32, l + 64, ...
struct WarpRow {
  static constexpr int kSlots = kMostWidth / kWarpThreads;

  // Calls function(slot, column) for this lane's columns.
  template <typename Function>
  static __device__ void ForEach(int width, Function&& function) {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const int column = slot * kWarpThreads + static_cast<int>(threadIdx.x) % kWarpThreads;
      if (column < width) {
        function(slot, column);
      }
    }
  }
  __device__ void SetZero() {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      values[slot] = 0;
    }
  }
  template <typename T>
  __device__ void AddMultiple(float factor, const T* row, int width) {
    ForEach(width, [&](int slot, int column) {
      values[slot] = __fmaf_rn(factor, static_cast<float>(row[column]), values[slot]);
    });
  }
  template <typename T>
  __device__ void Store(float factor, int width, T* row) const {
    ForEach(width,
            [&](int slot, int column) { row[column] = static_cast<T>(factor * values[slot]); });
  }

  float values[kSlots];
};

// The warp's part of a block's shared rows, and its row in (b, head, t) order; `row` is `count` or
// more in warps that have none.
struct WarpPlace {
  __device__ WarpPlace(int heads, int tokens)
      : lane(static_cast<int>(threadIdx.x) % kWarpThreads),
        warp(static_cast<int>(threadIdx.x) / kWarpThreads),
        row(static_cast<int64_t>(blockIdx.x) * kWarps + warp),
        t(static_cast<int>(row % tokens)),
        h(static_cast<int>(row / tokens % heads)),
        b(static_cast<int>(row / tokens / heads)) {}

  int lane;
  int warp;
  int64_t row;
  int t;
  int h;
  int b;
};

// Copies a row to shared memory, for the whole warp to read.
template <typename T>
__device__ void CopyRow(const T* row, int width, float* shared) {
  __syncwarp();
  WarpRow::ForEach(width,
                   [&](int, int column) { shared[column] = static_cast<float>(row[column]); });
  __syncwarp();
}

template <typename T>
__device__ float Dot(const float* shared, const T* row, int width) {
  float sum = 0;
  for (int c = 0; c < width; ++c) {
    sum = __fmaf_rn(shared[c], static_cast<float>(row[c]), sum);
  }
  return sum;
}

// sum += row, turned back by row t of the table. `shared` is overwritten.
__device__ void AddTurnedBack(const WarpRow& row, RotationView table, int t, int width,
                              float* shared, WarpRow& sum) {
  if (table.cos == nullptr) {
    WarpRow::ForEach(width, [&](int slot, int) { sum.values[slot] += row.values[slot]; });
    return;
  }
  const int half = width / 2;
  const int64_t first = static_cast<int64_t>(t) * half;
  __syncwarp();
  WarpRow::ForEach(width, [&](int slot, int column) { shared[column] = row.values[slot]; });
  __syncwarp();
  WarpRow::ForEach(width, [&](int slot, int column) {
    const int pair = column < half ? column : column - half;
    const float sin = column < half ? table.sin[first + pair] : -table.sin[first + pair];
    const float other = shared[column < half ? column + half : pair];
    sum.values[slot] += __fmaf_rn(row.values[slot], table.cos[first + pair], other * sin);
  });
}

// One warp per (b, h, query row), 32 keys at a time, one per lane for scores; for the sum of values
// each lane has its own columns.
template <typename T>
__global__ void ForwardRowsKernel(ForwardArguments<T> arguments, int64_t rows) {
  PANTHERA_SHARED_ARRAY(float, shared, kWarps* kMostWidth);
  const AttentionView<T>& attention = arguments.attention;
  const WarpPlace place(attention.heads, attention.queries);
  if (place.row >= rows) {
    return;
  }
  const int width = attention.v.width;
  const int position = attention.first_position() + place.t;
  const int kv_head = place.h / (attention.heads / attention.kv_heads);
  float* const q = shared + place.warp * kMostWidth;
  float largest = -INFINITY;
  float total = 0;
  WarpRow out;
  out.SetZero();
  for (int index = 0; index < attention.band_count; ++index) {
    const BandView<T>& band = attention.bands[index];
    const Range seen = VisibleKeys(band, {position, position + 1});
    CopyRow(band.q.Row(place.b, place.t, place.h), width, q);
    for (int key = seen.begin; key < seen.end; key += kWarpThreads) {
      const int mine = key + place.lane;
      const float score = mine < seen.end
                              ? attention.scale * Dot(q, band.k.Row(place.b, mine, kv_head), width)
                              : -INFINITY;
      const float before = largest;
      largest = fmaxf(largest, WarpMax(score));
      const float shrink = expf(before - largest);
      const float exponential = expf(score - largest);
      total = __fmaf_rn(total, shrink, WarpSum(exponential));
      WarpRow::ForEach(width, [&](int slot, int) { out.values[slot] *= shrink; });
      for (int n = 0; n < kWarpThreads && key + n < seen.end; ++n) {
        out.AddMultiple(__shfl_sync(kWholeWarp, exponential, n),
                        attention.v.Row(place.b, key + n, kv_head), width);
      }
    }
  }
  out.Store(__fdiv_rn(1.0F, total), width, arguments.out.Row(place.b, place.t, place.h));
  if (place.lane == 0) {
    arguments.lse[place.row] = largest + logf(total);
  }
}

// One warp per (b, h, query row), as above: delta and dq.
template <typename T>
__global__ void QueryGradientRowsKernel(BackwardArguments<T> arguments, int64_t rows) {
  PANTHERA_SHARED_ARRAY(float, shared, 2 * kWarps * kMostWidth);
  const AttentionView<T>& attention = arguments.attention;
  const WarpPlace place(attention.heads, attention.queries);
  if (place.row >= rows) {
    return;
  }
  const int width = attention.v.width;
  const int position = attention.first_position() + place.t;
  const int kv_head = place.h / (attention.heads / attention.kv_heads);
  float* const q = shared + place.warp * 2 * kMostWidth;
  float* const dout = q + kMostWidth;
  CopyRow(arguments.dout.Row(place.b, place.t, place.h), width, dout);
  const T* const out = arguments.out.Row(place.b, place.t, place.h);
  float delta = 0;
  WarpRow::ForEach(width, [&](int, int column) {
    delta = __fmaf_rn(dout[column], static_cast<float>(out[column]), delta);
  });
  delta = WarpSum(delta);
  if (place.lane == 0) {
    arguments.delta[place.row] = delta;
  }
  const float lse = arguments.lse[place.row];
  WarpRow dq;
  dq.SetZero();
  for (int index = 0; index < attention.band_count; ++index) {
    const BandView<T>& band = attention.bands[index];
    const Range seen = VisibleKeys(band, {position, position + 1});
    CopyRow(band.q.Row(place.b, place.t, place.h), width, q);
    WarpRow of_band;
    of_band.SetZero();
    for (int key = seen.begin; key < seen.end; key += kWarpThreads) {
      const int mine = key + place.lane;
      float dscore = 0;
      if (mine < seen.end) {
        const float score = attention.scale * Dot(q, band.k.Row(place.b, mine, kv_head), width);
        const float dp = Dot(dout, attention.v.Row(place.b, mine, kv_head), width);
        dscore = expf(score - lse) * (dp - delta);
      }
      for (int n = 0; n < kWarpThreads && key + n < seen.end; ++n) {
        of_band.AddMultiple(__shfl_sync(kWholeWarp, dscore, n),
                            band.k.Row(place.b, key + n, kv_head), width);
      }
    }
    AddTurnedBack(of_band, band.q_rotation, place.t, width, q, dq);
  }
  dq.Store(attention.scale, width, arguments.dq.Row(place.b, place.t, place.h));
}

// One warp per (b, key/value head, key), 32 queries at a time, one per lane for scores: dk and dv.
template <typename T>
__global__ void KeyGradientRowsKernel(BackwardArguments<T> arguments, int64_t rows) {
  PANTHERA_SHARED_ARRAY(float, shared, 2 * kWarps * kMostWidth);
  const AttentionView<T>& attention = arguments.attention;
  const WarpPlace place(attention.kv_heads, attention.keys);
  if (place.row >= rows) {
    return;
  }
  const int width = attention.v.width;
  const int group = attention.heads / attention.kv_heads;
  float* const k = shared + place.warp * 2 * kMostWidth;
  float* const v = k + kMostWidth;
  CopyRow(attention.v.Row(place.b, place.t, place.h), width, v);
  WarpRow dk;
  WarpRow dv;
  dk.SetZero();
  dv.SetZero();
  for (int index = 0; index < attention.band_count; ++index) {
    const BandView<T>& band = attention.bands[index];
    const Range seeing = SeeingQueries(attention, band, {place.t, place.t + 1});
    CopyRow(band.k.Row(place.b, place.t, place.h), width, k);
    WarpRow of_band;
    of_band.SetZero();
    for (int h = place.h * group; h < (place.h + 1) * group; ++h) {
      const int64_t constants =
          static_cast<int64_t>(place.b * attention.heads + h) * attention.queries;
      for (int row = seeing.begin; row < seeing.end; row += kWarpThreads) {
        const int mine = row + place.lane;
        float p = 0;
        float dscore = 0;
        if (mine < seeing.end) {
          const float score = attention.scale * Dot(k, band.q.Row(place.b, mine, h), width);
          const float dp = Dot(v, arguments.dout.Row(place.b, mine, h), width);
          p = expf(score - arguments.lse[constants + mine]);
          dscore = p * (dp - arguments.delta[constants + mine]);
        }
        for (int n = 0; n < kWarpThreads && row + n < seeing.end; ++n) {
          dv.AddMultiple(__shfl_sync(kWholeWarp, p, n), arguments.dout.Row(place.b, row + n, h),
                         width);
          of_band.AddMultiple(__shfl_sync(kWholeWarp, dscore, n), band.q.Row(place.b, row + n, h),
                              width);
        }
      }
    }
    AddTurnedBack(of_band, band.k_rotation, place.t, width, k, dk);
  }
  dk.Store(attention.scale, width, arguments.dk.Row(place.b, place.t, place.h));
  dv.Store(1.0F, width, arguments.dv.Row(place.b, place.t, place.h));
}

template <typename Arguments>
void LaunchRows(Stream& stream, void (*kernel)(Arguments, int64_t), const Arguments& arguments,
                int64_t rows) {
  CHECK_LE(arguments.attention.v.width, kMostWidth);
  Launch(stream, {GridOf(CeilDiv(rows, int64_t{kWarps})), dim3(kThreads)}, kernel, arguments, rows);
}

}  // namespace

template <typename T>
void LaunchForwardRows(Stream& stream, const ForwardArguments<T>& arguments, int64_t batch) {
  const AttentionView<T>& attention = arguments.attention;
  LaunchRows(stream, &ForwardRowsKernel<T>, arguments, batch * attention.heads * attention.queries);
}

template <typename T>
void LaunchQueryGradientRows(Stream& stream, const BackwardArguments<T>& arguments, int64_t batch) {
  const AttentionView<T>& attention = arguments.attention;
  LaunchRows(stream, &QueryGradientRowsKernel<T>, arguments,
             batch * attention.heads * attention.queries);
}

template <typename T>
void LaunchKeyGradientRows(Stream& stream, const BackwardArguments<T>& arguments, int64_t batch) {
  const AttentionView<T>& attention = arguments.attention;
  LaunchRows(stream, &KeyGradientRowsKernel<T>, arguments,
             batch * attention.kv_heads * attention.keys);
}

template void LaunchForwardRows(Stream&, const ForwardArguments<float>&, int64_t);
template void LaunchForwardRows(Stream&, const ForwardArguments<BF16>&, int64_t);
template void LaunchQueryGradientRows(Stream&, const BackwardArguments<float>&, int64_t);
template void LaunchQueryGradientRows(Stream&, const BackwardArguments<BF16>&, int64_t);
template void LaunchKeyGradientRows(Stream&, const BackwardArguments<float>&, int64_t);
template void LaunchKeyGradientRows(Stream&, const BackwardArguments<BF16>&, int64_t);

}  // namespace panthera::cuda
