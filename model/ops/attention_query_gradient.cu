#include <cstddef>
#include <cstdint>

#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

// dq: blocks of queries that stay, tiles of keys that pass by, in two stages. Where registers
// allow, a warp has two tiles of rows, as in the forward pass.
template <int kWidth>
struct QueryGradientShape {
  static constexpr int kRowTiles = kWidth == 64 ? 2 : 1;
  static constexpr int kWarpRows = 16 * kRowTiles;
  static constexpr int kQueries = 128;
  static constexpr int kKeys = kWidth == 64 ? 32 : 64;
  static constexpr int kWarps = kQueries / kWarpRows;
  static constexpr int kThreads = kWarps * kWarpThreads;
  static constexpr int kBlocksAtOnce = kWidth == 64 ? 2 : 1;  // on a multiprocessor
};

template <int kWidth>
struct QueryGradientMemory {
  using Shape = QueryGradientShape<kWidth>;
  using Tile = SharedTile<kWidth>;
  static constexpr size_t kBytes = size_t{2 * Shape::kQueries + 4 * Shape::kKeys} * Tile::kRowBytes;

  __device__ Tile q() const { return {memory}; }
  __device__ Tile dout() const { return {memory + Shape::kQueries * Tile::kRowBytes}; }
  __device__ Tile k(int stage) const { return OfStage(2 * stage); }
  __device__ Tile v(int stage) const { return OfStage(2 * stage + 1); }

  unsigned char* memory;

 private:
  __device__ Tile OfStage(int tile) const {
    return {memory + (2 * Shape::kQueries + tile * Shape::kKeys) * Tile::kRowBytes};
  }
};

// delta = <dout, out> for the warp's kRows rows from rows.begin on, up to rows.end, for this warp
// to read on return: delta[r] of row r.
template <int kRows, int kWidth>
__device__ void StoreDelta(const HeadsView<const BF16>& dout, const HeadsView<const BF16>& out,
                           int b, int h, Range rows, float* delta) {
  constexpr int kRowLanes = kWidth / 8;  // 16 bytes each
  constexpr int kRowsAtOnce = kWarpThreads / kRowLanes;
  for (int round = 0; round < kRows / kRowsAtOnce; ++round) {
    const int row = rows.begin + round * kRowsAtOnce + Lane() / kRowLanes;
    float sum = 0;
    if (row < rows.end) {
      const int column = Lane() % kRowLanes * 8;
      const uint4 x = *reinterpret_cast<const uint4*>(dout.Row(b, row, h) + column);
      const uint4 y = *reinterpret_cast<const uint4*>(out.Row(b, row, h) + column);
      sum = DotOfPairs(x.x, y.x, DotOfPairs(x.y, y.y, sum));
      sum = DotOfPairs(x.z, y.z, DotOfPairs(x.w, y.w, sum));
    }
#pragma unroll
    for (int offset = kRowLanes / 2; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(kWholeWarp, sum, offset);
    }
    if (row < rows.end && Lane() % kRowLanes == 0) {
      delta[row] = sum;
    }
  }
  __syncwarp();
}

// What a query's scores are turned back into probabilities with. For rows beyond the last query
// any finite values do: their dout is 0, and so is all that they add.
struct RowConstants {
  float log2_lse;
  float delta;
};

// One block per QueryBlock: delta and dq. The sum of dq is kept in the basis of the band's
// rotation, and turned from one to the next.
template <int kWidth>
__global__ void __launch_bounds__(QueryGradientShape<kWidth>::kThreads,
                                  QueryGradientShape<kWidth>::kBlocksAtOnce)
    QueryGradientKernel(BackwardArguments<BF16> arguments) {
  using Shape = QueryGradientShape<kWidth>;
  constexpr int kThreads = Shape::kThreads;
  constexpr int kRowTiles = Shape::kRowTiles;
  constexpr int kKeys = Shape::kKeys;
  const AttentionView<BF16>& attention = arguments.attention;
  const QueryGradientMemory<kWidth> shared{DynamicShared<unsigned char>()};
  const QueryBlock<Shape::kQueries> block(attention);
  const int warp_row = Warp() * Shape::kWarpRows;
  const Range warp_rows = RangeUpTo(block.rows.begin + warp_row, Shape::kWarpRows, block.rows.end);
  const Range warp_positions = block.positions(warp_rows);
  const BF16* const v_head = attention.v.Head(block.b, block.kv_head);
  const float log2_scale = attention.scale * kLog2E;

  BeginTileCopy<Shape::kQueries, kThreads>(arguments.dout.Head(block.b, block.h),
                                           arguments.dout.stride, block.rows, shared.dout());
  float* const delta = arguments.delta + block.constants;
  StoreDelta<Shape::kWarpRows, kWidth>(arguments.dout, arguments.out, block.b, block.h, warp_rows,
                                       delta);
  RowConstants constants[kRowTiles][2];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_rows.begin + Sums<kRowTiles, 1>::Row(m, half * 2);
      constants[m][half] = {0, 0};
      if (row < warp_rows.end) {
        constants[m][half] = {arguments.lse[block.constants + row] * kLog2E, delta[row]};
      }
    }
  }

  Sums<kRowTiles, kWidth / 8> dq;
  SetZero(dq);
  for (int index = 0; index < attention.band_count; ++index) {
    const BandView<BF16>& band = attention.bands[index];
    const Range seen = VisibleKeys(band, block.positions(block.rows));
    if (seen.is_empty()) {
      continue;
    }
    const BF16* const k_head = band.k.Head(block.b, block.kv_head);
    const auto begin_copy = [&](int key, int stage) {
      BeginTileCopy<kKeys, kThreads>(k_head, band.k.stride, {key, attention.keys}, shared.k(stage));
      BeginTileCopy<kKeys, kThreads>(v_head, attention.v.stride, {key, attention.keys},
                                     shared.v(stage));
    };
    int key = seen.begin / kKeys * kKeys;
    int stage = 0;
    __syncthreads();  // the band before no longer needs q, k and v
    BeginTileCopy<Shape::kQueries, kThreads>(band.q.Head(block.b, block.h), band.q.stride,
                                             block.rows, shared.q());
    begin_copy(key, stage);
    CommitCopies();
    Turn(band.q_rotation, warp_rows, 1.0F, dq);
    for (; key < seen.end; key += kKeys, stage = 1 - stage) {
      WaitForCopies<0>();
      __syncthreads();  // this stage is there, and the other no longer needed
      if (key + kKeys < seen.end) {
        begin_copy(key + kKeys, 1 - stage);
        CommitCopies();
      }
      const Visibility visibility = VisibilityOf(band, warp_positions, {key, key + kKeys});
      if (visibility == Visibility::kNone) {
        continue;
      }
      Sums<kRowTiles, kKeys / 8> scores;
      Sums<kRowTiles, kKeys / 8> dscores;
      MultiplyRows(shared.q(), warp_row, shared.k(stage), 0, scores);
      MultiplyRows(shared.dout(), warp_row, shared.v(stage), 0, dscores);
      scores.ForEach([&](int m, int n, int i) {
        const RowConstants& row = constants[m][i / 2];
        float& dscore = dscores.values[m][n][i];
        dscore =
            Probability(scores.values[m][n][i], log2_scale, row.log2_lse) * (dscore - row.delta);
      });
      if (visibility == Visibility::kSome) {
        dscores.ForEach([&](int m, int n, int i) {
          const int distance =
              warp_positions.begin + dscores.Row(m, i) - key - dscores.Column(n, i);
          dscores.values[m][n][i] = Sees(band, distance) ? dscores.values[m][n][i] : 0.0F;
        });
      }
      AddProduct(RoundedSums(dscores), shared.k(stage), 0, dq);
    }
    Turn(band.q_rotation, warp_rows, -1.0F, dq);
  }
  StoreRows<kRowTiles, kWidth>(
      dq, [&](int, int) { return attention.scale; }, shared.q(), warp_row,
      arguments.dq.Head(block.b, block.h), arguments.dq.stride, warp_rows);
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch) {
  using Shape = QueryGradientShape<kWidth>;
  const AttentionView<BF16>& attention = arguments.attention;
  const int64_t blocks = batch * attention.heads * CeilDiv(attention.queries, Shape::kQueries);
  Launch(stream, {GridOf(blocks), dim3(Shape::kThreads), QueryGradientMemory<kWidth>::kBytes},
         &QueryGradientKernel<kWidth>, arguments);
}

}  // namespace

void LaunchQueryGradient(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch) {
  if (arguments.attention.v.width == 64) {
    LaunchOfWidth<64>(stream, arguments, batch);
  } else {
    LaunchOfWidth<128>(stream, arguments, batch);
  }
}

}  // namespace panthera::cuda
