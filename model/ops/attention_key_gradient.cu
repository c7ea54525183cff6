#include <cstddef>
#include <cstdint>

#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

// dk and dv: blocks of keys that stay, tiles of queries that pass by, in two stages. Two sums in
// registers leave room for few scores at a time.
template <int kWidth>
struct KeyGradientShape {
  static constexpr int kRowTiles = kWidth == 64 ? 2 : 1;
  static constexpr int kWarpRows = 16 * kRowTiles;
  static constexpr int kKeys = 128;
  static constexpr int kWarps = kKeys / kWarpRows;
  static constexpr int kThreads = kWarps * kWarpThreads;
  static constexpr int kBlocksAtOnce = kWidth == 64 ? 2 : 1;  // on a multiprocessor
  static constexpr int kQueries = 64;
  static constexpr int kPartQueries = 32;
};

template <int kWidth>
struct KeyGradientMemory {
  using Shape = KeyGradientShape<kWidth>;
  using Tile = SharedTile<kWidth>;
  static constexpr int kTileBytes = (2 * Shape::kKeys + 4 * Shape::kQueries) * Tile::kRowBytes;
  static constexpr size_t kBytes = kTileBytes + 4 * Shape::kQueries * sizeof(float);

  __device__ Tile k() const { return {memory}; }
  __device__ Tile v() const { return {memory + Shape::kKeys * Tile::kRowBytes}; }
  __device__ Tile q(int stage) const { return OfStage(2 * stage); }
  __device__ Tile dout(int stage) const { return OfStage(2 * stage + 1); }
  __device__ float* lse(int stage) const { return Floats(2 * stage); }
  __device__ float* delta(int stage) const { return Floats(2 * stage + 1); }

  unsigned char* memory;

 private:
  __device__ Tile OfStage(int tile) const {
    return {memory + (2 * Shape::kKeys + tile * Shape::kQueries) * Tile::kRowBytes};
  }
  __device__ float* Floats(int row) const {
    return reinterpret_cast<float*>(memory + kTileBytes) + row * Shape::kQueries;
  }
};

// Begins to copy the first kCount floats of the range, and zeros after its end.
template <int kCount, int kFirstThread>
__device__ void BeginFloatCopy(const float* source, Range range, float* target) {
  const int i = static_cast<int>(threadIdx.x) - kFirstThread;
  if (i >= 0 && i < kCount) {
    const bool is_there = range.begin + i < range.end;
    BeginCopy<4>(target + i, source + (is_there ? range.begin + i : range.begin),
                 is_there ? CopySource::kMemory : CopySource::kZeros);
  }
}

// One warp's part of the work of a block on kPartQueries queries of a stage, from part_row on,
// which stand at first_position: dk and dv of its keys [kWarpRows] grow. Rows of scores are keys
// here, and columns queries.
template <int kWidth, int kRowTiles>
__device__ void AddKeyGradients(const KeyGradientMemory<kWidth>& shared, int stage, int part_row,
                                float log2_scale, const BandView<BF16>& band, Visibility visibility,
                                int first_position, int first_key, Sums<kRowTiles, kWidth / 8>& dk,
                                Sums<kRowTiles, kWidth / 8>& dv) {
  using Shape = KeyGradientShape<kWidth>;
  using Scores = Sums<kRowTiles, Shape::kPartQueries / 8>;
  const int warp_row = Warp() * Shape::kWarpRows;
  const float* const lse = shared.lse(stage) + part_row;
  const float* const delta = shared.delta(stage) + part_row;
  Scores p;
  Scores dscores;
  MultiplyRows(shared.k(), warp_row, shared.q(stage), part_row, p);
  p.ForEach([&](int m, int n, int i) {
    p.values[m][n][i] =
        Probability(p.values[m][n][i], log2_scale, lse[Scores::Column(n, i)] * kLog2E);
  });
  if (visibility == Visibility::kSome) {
    p.ForEach([&](int m, int n, int i) {
      const int distance = first_position + p.Column(n, i) - first_key - p.Row(m, i);
      p.values[m][n][i] = Sees(band, distance) ? p.values[m][n][i] : 0.0F;
    });
  }
  AddProduct(RoundedSums(p), shared.dout(stage), part_row, dv);
  MultiplyRows(shared.v(), warp_row, shared.dout(stage), part_row, dscores);
  dscores.ForEach([&](int m, int n, int i) {
    dscores.values[m][n][i] =
        p.values[m][n][i] * (dscores.values[m][n][i] - delta[Scores::Column(n, i)]);
  });
  AddProduct(RoundedSums(dscores), shared.q(stage), part_row, dk);
}

// One block per (b, key/value head, kKeys keys): dk and dv, summed over the query heads that read
// the head, in their order. The sum of dk is kept in the basis of the band's rotation.
template <int kWidth>
__global__ void __launch_bounds__(KeyGradientShape<kWidth>::kThreads,
                                  KeyGradientShape<kWidth>::kBlocksAtOnce)
    KeyGradientKernel(BackwardArguments<BF16> arguments) {
  using Shape = KeyGradientShape<kWidth>;
  constexpr int kThreads = Shape::kThreads;
  constexpr int kRowTiles = Shape::kRowTiles;
  constexpr int kQueries = Shape::kQueries;
  const AttentionView<BF16>& attention = arguments.attention;
  const KeyGradientMemory<kWidth> shared{DynamicShared<unsigned char>()};
  const int tiles = (attention.keys + Shape::kKeys - 1) / Shape::kKeys;
  const int block = static_cast<int>(blockIdx.x);
  const Range keys = RangeUpTo(block % tiles * Shape::kKeys, Shape::kKeys, attention.keys);
  const int kv_head = block / tiles % attention.kv_heads;
  const int b = block / tiles / attention.kv_heads;
  const int group = attention.heads / attention.kv_heads;
  const int warp_row = Warp() * Shape::kWarpRows;
  const Range warp_keys = RangeUpTo(keys.begin + warp_row, Shape::kWarpRows, keys.end);
  const float log2_scale = attention.scale * kLog2E;

  BeginTileCopy<Shape::kKeys, kThreads>(attention.v.Head(b, kv_head), attention.v.stride, keys,
                                        shared.v());
  Sums<kRowTiles, kWidth / 8> dk;
  Sums<kRowTiles, kWidth / 8> dv;
  SetZero(dk);
  SetZero(dv);
  for (int index = 0; index < attention.band_count; ++index) {
    const BandView<BF16>& band = attention.bands[index];
    const Range seeing = SeeingQueries(attention, band, keys);
    if (seeing.is_empty()) {
      continue;
    }
    const int first_row = seeing.begin / kQueries * kQueries;
    const int head_steps = (seeing.end - first_row + kQueries - 1) / kQueries;
    const int steps = group * head_steps;
    const auto begin_copy = [&](int step) {
      const int h = kv_head * group + step / head_steps;
      const Range rows{first_row + step % head_steps * kQueries, attention.queries};
      const int64_t constants = static_cast<int64_t>(b * attention.heads + h) * attention.queries;
      BeginTileCopy<kQueries, kThreads>(band.q.Head(b, h), band.q.stride, rows, shared.q(step % 2));
      BeginTileCopy<kQueries, kThreads>(arguments.dout.Head(b, h), arguments.dout.stride, rows,
                                        shared.dout(step % 2));
      BeginFloatCopy<kQueries, 0>(arguments.lse + constants, rows, shared.lse(step % 2));
      BeginFloatCopy<kQueries, kQueries>(arguments.delta + constants, rows, shared.delta(step % 2));
    };
    __syncthreads();  // the band before no longer needs k, q and dout
    BeginTileCopy<Shape::kKeys, kThreads>(band.k.Head(b, kv_head), band.k.stride, keys, shared.k());
    begin_copy(0);
    CommitCopies();
    Turn(band.k_rotation, warp_keys, 1.0F, dk);
    for (int step = 0; step < steps; ++step) {
      WaitForCopies<0>();
      __syncthreads();  // this stage is there, and the other no longer needed
      if (step + 1 < steps) {
        begin_copy(step + 1);
        CommitCopies();
      }
      const int row = first_row + step % head_steps * kQueries;
      for (int part = 0; part < kQueries; part += Shape::kPartQueries) {
        const Range rows = RangeUpTo(row + part, Shape::kPartQueries, attention.queries);
        const Range positions{attention.first_position() + rows.begin,
                              attention.first_position() + rows.end};
        const Visibility visibility = VisibilityOf(band, positions, warp_keys);
        if (visibility != Visibility::kNone) {
          AddKeyGradients(shared, step % 2, part, log2_scale, band, visibility, positions.begin,
                          warp_keys.begin, dk, dv);
        }
      }
    }
    Turn(band.k_rotation, warp_keys, -1.0F, dk);
  }
  // Where no query sees any of the keys, nobody has waited for v, in whose place dv is staged.
  CommitCopies();
  WaitForCopies<0>();
  __syncthreads();
  StoreRows<kRowTiles, kWidth>(
      dk, [&](int, int) { return attention.scale; }, shared.k(), warp_row,
      arguments.dk.Head(b, kv_head), arguments.dk.stride, warp_keys);
  StoreRows<kRowTiles, kWidth>(
      dv, [](int, int) { return 1.0F; }, shared.v(), warp_row, arguments.dv.Head(b, kv_head),
      arguments.dv.stride, warp_keys);
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch) {
  using Shape = KeyGradientShape<kWidth>;
  const AttentionView<BF16>& attention = arguments.attention;
  const int64_t blocks = batch * attention.kv_heads * CeilDiv(attention.keys, Shape::kKeys);
  Launch(stream, {GridOf(blocks), dim3(Shape::kThreads), KeyGradientMemory<kWidth>::kBytes},
         &KeyGradientKernel<kWidth>, arguments);
}

}  // namespace

void LaunchKeyGradient(Stream& stream, const BackwardArguments<BF16>& arguments, int64_t batch) {
  if (arguments.attention.v.width == 64) {
    LaunchOfWidth<64>(stream, arguments, batch);
  } else {
    LaunchOfWidth<128>(stream, arguments, batch);
  }
}

}  // namespace panthera::cuda
