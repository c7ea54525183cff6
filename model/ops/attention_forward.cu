#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpThreads;
// 16-row tiles of a warp. Two, because each part of a key tile that a warp loads from shared memory
// then serves twice: with one the tensor cores would wait for it.
constexpr int kRowTiles = 2;
constexpr int kWarpRows = 16 * kRowTiles;
constexpr int kQueries = kWarps * kWarpRows;  // of a block
// Keys at a time: as many as registers have room for the scores of, beside `out`.
constexpr int KeysAtOnce(int width) { return width == 64 ? 64 : 48; }

// The larger and the sum over the four threads that share a row.
__device__ float RowMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, 1));
  return fmaxf(value, __shfl_xor_sync(kWholeWarp, value, 2));
}
__device__ float RowSum(float value) {
  value += __shfl_xor_sync(kWholeWarp, value, 1);
  return value + __shfl_xor_sync(kWholeWarp, value, 2);
}

// What a thread knows of the rows that it holds parts of: [m][0] is row Lane() / 4 of tile m,
// [m][1] the row 8 below it.
struct RunningSoftmax {
  __device__ RunningSoftmax() {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        largest[m][half] = -INFINITY;
        total[m][half] = 0;
      }
    }
  }

  // Takes in the scores of further keys: they become exp(scale * (score - largest)), and `out`,
  // sums relative to the largest so far, becomes relative to the new one. log2_scale = scale *
  // log2(e).
  template <int kScoreTiles, int kOutTiles>
  __device__ void Fold(float log2_scale, Sums<kRowTiles, kScoreTiles>& scores,
                       Sums<kRowTiles, kOutTiles>& out) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float next = largest[m][half];
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
          next = fmaxf(next, scores.values[m][n][half * 2]);
          next = fmaxf(next, scores.values[m][n][half * 2 + 1]);
        }
        next = RowMax(next);
        // A row that has seen no key yet keeps exponentials of 0, not of -inf + inf.
        const float base = next == -INFINITY ? 0.0F : next * log2_scale;
        const float shrink = FastExp2(__fmaf_rn(largest[m][half], log2_scale, -base));
        float sum = total[m][half] * shrink;
#pragma unroll
        for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
          for (int i = half * 2; i < half * 2 + 2; ++i) {
            float& score = scores.values[m][n][i];
            score = FastExp2(__fmaf_rn(score, log2_scale, -base));
            sum += score;
          }
        }
#pragma unroll
        for (int n = 0; n < kOutTiles; ++n) {
          out.values[m][n][half * 2] *= shrink;
          out.values[m][n][half * 2 + 1] *= shrink;
        }
        largest[m][half] = next;
        total[m][half] = sum;
      }
    }
  }

  // Sums the totals over all columns, and stores lse of the rows before `end`; the warp's first row
  // is first_row.
  __device__ void Finish(float scale, int first_row, int end, float* lse) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        total[m][half] = RowSum(total[m][half]);
        const int row = first_row + Sums<kRowTiles, 1>::Row(m, half * 2);
        if (row < end && Lane() % 4 == 0) {
          lse[row] = __fmaf_rn(largest[m][half], scale, logf(total[m][half]));
        }
      }
    }
  }

  float largest[kRowTiles][2];  // score so far
  float total[kRowTiles][2];    // of exponentials, this thread's columns
};

template <int kWidth>
struct ForwardMemory {
  static constexpr int kKeys = KeysAtOnce(kWidth);
  static constexpr size_t kBytes = (kQueries + 2 * kKeys) * SharedTile<kWidth>::kRowBytes;

  __device__ explicit ForwardMemory(unsigned char* memory)
      : q{memory},
        k{memory + kQueries * SharedTile<kWidth>::kRowBytes},
        v{k.memory + kKeys * SharedTile<kWidth>::kRowBytes} {}

  SharedTile<kWidth> q;  // [kQueries]
  SharedTile<kWidth> k;  // [kKeys]
  SharedTile<kWidth> v;  // [kKeys]
};

// The scores of keys that a row does not see become -inf.
template <int kColumnTiles>
__device__ void Mask(const BandView<BF16>& band, int first_position, int first_key,
                     Sums<kRowTiles, kColumnTiles>& scores) {
  scores.ForEach([&](int m, int n, int i) {
    const int distance = first_position + scores.Row(m, i) - first_key - scores.Column(n, i);
    scores.values[m][n][i] = Sees(band, distance) ? scores.values[m][n][i] : -INFINITY;
  });
}

// One block per QueryBlock. While scores are computed from a tile of keys its values are copied;
// while these are used, the next keys.
template <int kWidth>
__global__ void __launch_bounds__(kThreads, 2) ForwardKernel(ForwardArguments<BF16> arguments) {
  constexpr int kKeys = KeysAtOnce(kWidth);
  const AttentionView<BF16>& attention = arguments.attention;
  const ForwardMemory<kWidth> shared(DynamicShared<unsigned char>());
  const QueryBlock<kQueries> block(attention);
  const int warp_row = Warp() * kWarpRows;
  const Range warp_positions =
      block.positions(RangeUpTo(block.rows.begin + warp_row, kWarpRows, block.rows.end));
  const BF16* const v_head = attention.v.Head(block.b, block.kv_head);
  const float log2_scale = attention.scale * kLog2E;
  RunningSoftmax softmax;
  Sums<kRowTiles, kWidth / 8> out;
  SetZero(out);

  for (int index = 0; index < attention.band_count; ++index) {
    const BandView<BF16>& band = attention.bands[index];
    const Range seen = VisibleKeys(band, block.positions(block.rows));
    if (seen.is_empty()) {
      continue;
    }
    const BF16* const k_head = band.k.Head(block.b, block.kv_head);
    int key = seen.begin / kKeys * kKeys;
    // The band before passed its last barrier after its last use of q and k.
    BeginTileCopy<kQueries, kThreads>(band.q.Head(block.b, block.h), band.q.stride, block.rows,
                                      shared.q);
    BeginTileCopy<kKeys, kThreads>(k_head, band.k.stride, {key, attention.keys}, shared.k);
    CommitCopies();
    for (; key < seen.end; key += kKeys) {
      const Visibility visibility = VisibilityOf(band, warp_positions, {key, key + kKeys});
      WaitForCopies<0>();
      __syncthreads();  // k is there, and v no longer needed
      BeginTileCopy<kKeys, kThreads>(v_head, attention.v.stride, {key, attention.keys}, shared.v);
      CommitCopies();
      Sums<kRowTiles, kKeys / 8> scores;
      if (visibility != Visibility::kNone) {
        MultiplyRows(shared.q, warp_row, shared.k, 0, scores);
      }
      WaitForCopies<0>();
      __syncthreads();  // v is there, and k no longer needed
      if (key + kKeys < seen.end) {
        BeginTileCopy<kKeys, kThreads>(k_head, band.k.stride, {key + kKeys, attention.keys},
                                       shared.k);
        CommitCopies();
      }
      if (visibility != Visibility::kNone) {
        if (visibility == Visibility::kSome) {
          Mask(band, warp_positions.begin, key, scores);
        }
        softmax.Fold(log2_scale, scores, out);
        AddProduct(RoundedSums(scores), shared.v, 0, out);
      }
    }
  }

  const int first_row = block.rows.begin + warp_row;
  softmax.Finish(attention.scale, first_row, block.rows.end, arguments.lse + block.constants);
  StoreRows<kRowTiles, kWidth>(
      out, [&](int m, int i) { return __fdiv_rn(1.0F, softmax.total[m][i / 2]); }, shared.q,
      warp_row, arguments.out.Head(block.b, block.h), arguments.out.stride,
      {first_row, block.rows.end});
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const ForwardArguments<BF16>& arguments, int64_t batch) {
  const AttentionView<BF16>& attention = arguments.attention;
  const int64_t tiles = CeilDiv(attention.queries, kQueries);
  Launch(stream,
         {GridOf(batch * attention.heads * tiles), dim3(kThreads), ForwardMemory<kWidth>::kBytes},
         &ForwardKernel<kWidth>, arguments);
}

}  // namespace

void LaunchForward(Stream& stream, const ForwardArguments<BF16>& arguments, int64_t batch) {
  if (arguments.attention.v.width == 64) {
    LaunchOfWidth<64>(stream, arguments, batch);
  } else {
    LaunchOfWidth<128>(stream, arguments, batch);
  }
}

void AttentionForward(Stream& stream, std::span<const AttentionBand> bands, const Heads& v,
                      float scale, Heads out, Tensor lse, KernelChoice choice) {
  if (out.batch * out.heads * out.tokens == 0) {
    return;
  }
  DispatchFloat(out.dtype(), [&]<typename T>() {
    const ForwardArguments<T> arguments{
        .attention = View<T>(bands, v, out, scale), .out = View<T>(out), .lse = lse.data<float>()};
    if constexpr (std::is_same_v<T, BF16>) {
      switch (ChooseAttentionKernels(bands, {&v, &out}, PlatformOf(stream, choice))) {
        case AttentionKernels::kHopper:
          LaunchHopperForward(stream, arguments, out.batch);
          return;
        case AttentionKernels::kTensorCores:
          LaunchForward(stream, arguments, out.batch);
          return;
        case AttentionKernels::kRows:
          break;
      }
    }
    LaunchForwardRows(stream, arguments, out.batch);
  });
}

}  // namespace panthera::cuda
