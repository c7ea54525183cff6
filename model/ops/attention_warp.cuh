// What warps do with tiles of heads: 16-bit rows in shared memory, products on the tensor cores
// with sums in registers, and sums turned, rounded and stored.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_WARP_CUH_
#define PANTHERA_MODEL_OPS_ATTENTION_WARP_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "model/ops/attention_arguments.cuh"
#include "runtime/base/dtype.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/mma.cuh"

namespace panthera::cuda {

__device__ inline int Lane() { return static_cast<int>(threadIdx.x) % kWarpThreads; }
__device__ inline int Warp() { return static_cast<int>(threadIdx.x) / kWarpThreads; }

// The query rows of a block whose index counts (b, h, tile of kQueries rows), in each head those
// with the most keys first.
template <int kQueries>
struct QueryBlock {
  __device__ explicit QueryBlock(const AttentionView<BF16>& attention)
      : first_position(attention.first_position()) {
    const int tiles = (attention.queries + kQueries - 1) / kQueries;
    const int index = static_cast<int>(blockIdx.x);
    rows = RangeUpTo((tiles - 1 - index % tiles) * kQueries, kQueries, attention.queries);
    h = index / tiles % attention.heads;
    b = index / tiles / attention.heads;
    kv_head = h / (attention.heads / attention.kv_heads);
    constants = static_cast<int64_t>(b * attention.heads + h) * attention.queries;
  }
  __device__ Range positions(Range of_rows) const {
    return {first_position + of_rows.begin, first_position + of_rows.end};
  }

  Range rows;
  int h;
  int b;
  int kv_head;
  int64_t constants;  // the place of the head's row 0 in lse and delta
  int first_position;
};

// Rows of kWidth bf16 in shared memory. The 16-byte chunks of a row are permuted by its index, so
// that the eight chunks that threads touch at once, down a column or along a row, lie in different
// banks.
template <int kWidth>
struct SharedTile {
  static constexpr int kChunkElements = 8;
  static constexpr int kChunkBytes = 16;
  static constexpr int kRowChunks = kWidth / kChunkElements;
  static constexpr int kRowBytes = kWidth * 2;
  static_assert(kRowChunks % 8 == 0);

  static __device__ int Offset(int row, int chunk) {
    return row * kRowBytes + (chunk ^ (row % 8)) * kChunkBytes;
  }
  __device__ unsigned char* Chunk(int row, int chunk) const { return memory + Offset(row, chunk); }

  unsigned char* memory;
};

// Begins to copy the first kRows rows of the range to a tile, by all kThreads threads of the block.
// Rows after the range's end become zeros. The range is not empty.
template <int kRows, int kThreads, int kWidth>
__device__ void BeginTileCopy(const BF16* head, int stride, Range rows, SharedTile<kWidth> tile) {
  using Tile = SharedTile<kWidth>;
  constexpr int kRowsAtOnce = kThreads / Tile::kRowChunks;
  static_assert(kRows % kRowsAtOnce == 0);
  static_assert(kRowsAtOnce % 8 == 0, "rows of one thread must be permuted alike");
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / Tile::kRowChunks;
  const int chunk = thread % Tile::kRowChunks;
  unsigned char* const target = tile.Chunk(row, chunk);
  const int64_t source =
      static_cast<int64_t>(rows.begin + row) * stride + chunk * Tile::kChunkElements;
#pragma unroll
  for (int round = 0; round < kRows / kRowsAtOnce; ++round) {
    const bool is_there = rows.begin + row + round * kRowsAtOnce < rows.end;
    BeginCopy<Tile::kChunkBytes>(
        target + round * kRowsAtOnce * Tile::kRowBytes,
        head + (is_there ? source + static_cast<int64_t>(round * kRowsAtOnce) * stride : 0),
        is_there ? CopySource::kMemory : CopySource::kZeros);
  }
}

// A warp's sums [16 * kRowTiles, 8 * kColumnTiles], spread over its threads as MultiplyAdd says.
template <int kRowTiles, int kColumnTiles>
struct Sums {
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kColumns = 8 * kColumnTiles;

  // Row and column of element (m, n, i).
  static __device__ int Row(int m, int i) { return m * 16 + i / 2 * 8 + Lane() / 4; }
  static __device__ int Column(int n, int i) { return n * 8 + Lane() % 4 * 2 + i % 2; }

  // Calls function(m, n, i) for all elements that the thread holds.
  template <typename Function>
  static __device__ void ForEach(Function&& function) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          function(m, n, i);
        }
      }
    }
  }

  float values[kRowTiles][kColumnTiles][4];
};

template <int kRowTiles, int kColumnTiles>
__device__ void SetZero(Sums<kRowTiles, kColumnTiles>& sums) {
  sums.ForEach([&](int m, int n, int i) { sums.values[m][n][i] = 0; });
}

// Sums rounded to bf16, as the first operand of the next product.
template <int kRowTiles, int kColumnTiles>
struct RoundedSums {
  __device__ explicit RoundedSums(const Sums<kRowTiles, kColumnTiles>& sums) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        const float(&of_tile)[4] = sums.values[m][n];
        pairs[m][n / 2][n % 2 * 2] = PackBf16(of_tile[0], of_tile[1]);
        pairs[m][n / 2][n % 2 * 2 + 1] = PackBf16(of_tile[2], of_tile[3]);
      }
    }
  }

  uint32_t pairs[kRowTiles][kColumnTiles / 2][4];
};

// sums = A B^T: rows of `a` from a_row on, rows of `b` from b_row on, both multiples of 8.
template <int kRowTiles, int kColumnTiles, int kWidth>
__device__ void MultiplyRows(SharedTile<kWidth> a, int a_row, SharedTile<kWidth> b, int b_row,
                             Sums<kRowTiles, kColumnTiles>& sums) {
  using Tile = SharedTile<kWidth>;
  SetZero(sums);
  // Rows 8 apart are permuted alike and the chunks of step s differ in bits of s alone, so a
  // thread's places are found from that of the first step.
  const int lane = Lane();
  const int a_offset = Tile::Offset(a_row + lane % 16, lane / 16);
  const int b_offset = Tile::Offset(b_row + lane % 8 + lane / 16 * 8, lane / 8 % 2);
  // Unrolled further, loads of later steps take registers that the sums need.
  [[maybe_unused]] constexpr int kUnroll = kRowTiles == 1 ? 2 : 1;
#pragma unroll kUnroll
  for (int step = 0; step < kWidth / 16; ++step) {
    const int step_bytes = step * 2 * Tile::kChunkBytes;
    uint32_t a_parts[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      LoadMatrices(a.memory + (a_offset ^ step_bytes) + m * 16 * Tile::kRowBytes, a_parts[m]);
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; n += 2) {
      uint32_t b_parts[4];
      LoadMatrices(b.memory + (b_offset ^ step_bytes) + n * 8 * Tile::kRowBytes, b_parts);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        MultiplyAdd(a_parts[m], b_parts[0], b_parts[1], sums.values[m][n]);
        MultiplyAdd(a_parts[m], b_parts[2], b_parts[3], sums.values[m][n + 1]);
      }
    }
  }
}

// sums += A B: A in registers, its columns against the rows of `b` from b_row on, a multiple of 8.
template <int kRowTiles, int kInnerTiles, int kWidth>
__device__ void AddProduct(const RoundedSums<kRowTiles, kInnerTiles>& a, SharedTile<kWidth> b,
                           int b_row, Sums<kRowTiles, kWidth / 8>& sums) {
  using Tile = SharedTile<kWidth>;
  const int lane = Lane();
  const int b_offset = Tile::Offset(b_row + lane % 16, lane / 16);
#pragma unroll
  for (int step = 0; step < kInnerTiles / 2; ++step) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; n += 2) {
      uint32_t b_parts[4];
      LoadMatricesTransposed(
          b.memory + (b_offset ^ (n * Tile::kChunkBytes)) + step * 16 * Tile::kRowBytes, b_parts);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        MultiplyAdd(a.pairs[m][step], b_parts[0], b_parts[1], sums.values[m][n]);
        MultiplyAdd(a.pairs[m][step], b_parts[2], b_parts[3], sums.values[m][n + 1]);
      }
    }
  }
}

__device__ inline float DotOfPairs(uint32_t a, uint32_t b, float sum) {
  sum = __fmaf_rn(FirstOfBf16(a), FirstOfBf16(b), sum);
  return __fmaf_rn(SecondOfBf16(a), SecondOfBf16(b), sum);
}

// exp(scale * score - lse) in base 2: log2_scale = scale * log2(e), log2_lse = lse * log2(e).
__device__ inline float Probability(float score, float log2_scale, float log2_lse) {
  return FastExp2(__fmaf_rn(score, log2_scale, -log2_lse));
}

// Turns a pair of features by an angle.
__device__ inline void Turn(float cos, float sin, float& one, float& other) {
  const float turned = __fmaf_rn(one, cos, -other * sin);
  other = __fmaf_rn(other, cos, one * sin);
  one = turned;
}

// Turns row r of `sums` by the angles of row rows.begin + r of the table, forwards (1) or backwards
// (-1). Rows from rows.end on are left as they are. A thread holds both features of a pair.
template <int kRowTiles, int kColumnTiles>
__device__ void Turn(RotationView table, Range rows, float direction,
                     Sums<kRowTiles, kColumnTiles>& sums) {
  constexpr int kHalf = kColumnTiles / 2;
  if (table.cos == nullptr) {
    return;
  }
  Sums<kRowTiles, kHalf>::ForEach([&](int m, int n, int i) {
    const int row = rows.begin + Sums<kRowTiles, kColumnTiles>::Row(m, i);
    if (row < rows.end) {
      const int64_t pair =
          static_cast<int64_t>(row) * (kHalf * 8) + Sums<kRowTiles, kColumnTiles>::Column(n, i);
      const float cos = table.cos[pair];
      const float sin = direction * table.sin[pair];
      Turn(cos, sin, sums.values[m][n][i], sums.values[m][n + kHalf][i]);
    }
  });
}

// Stores factor(m, i) * sums, rounded, in the rows of a head from rows.begin on, but not from
// rows.end on. Goes through the rows of `tile` from tile_row on, which only this warp has used: the
// products since then have kept its threads together.
template <int kRowTiles, int kWidth, typename Factor>
__device__ void StoreRows(const Sums<kRowTiles, kWidth / 8>& sums, Factor&& factor,
                          SharedTile<kWidth> tile, int tile_row, BF16* head, int stride,
                          Range rows) {
  using Tile = SharedTile<kWidth>;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const float times = factor(m, i);
        auto* const place = reinterpret_cast<uint32_t*>(tile.Chunk(tile_row + sums.Row(m, i), n));
        place[Lane() % 4] =
            PackBf16(times * sums.values[m][n][i], times * sums.values[m][n][i + 1]);
      }
    }
  }
  __syncwarp();
  constexpr int kRowsAtOnce = kWarpThreads / Tile::kRowChunks;
  const int chunk = Lane() % Tile::kRowChunks;
#pragma unroll
  for (int round = 0; round < 16 * kRowTiles / kRowsAtOnce; ++round) {
    const int row = round * kRowsAtOnce + Lane() / Tile::kRowChunks;
    if (rows.begin + row < rows.end) {
      BF16* const place =
          head + static_cast<int64_t>(rows.begin + row) * stride + chunk * Tile::kChunkElements;
      *reinterpret_cast<uint4*>(place) =
          *reinterpret_cast<const uint4*>(tile.Chunk(tile_row + row, chunk));
    }
  }
}

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_WARP_CUH_
