// What the attention kernels for Hopper share: their arguments, the order of their work, and the
// walks through tiles on which the warps that load and those that compute agree.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_HOPPER_CUH_
#define PANTHERA_MODEL_OPS_ATTENTION_HOPPER_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "model/ops/attention_arguments.cuh"
#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/bulk_copy.cuh"
#include "runtime/device/shared_memory.cuh"
#include "runtime/device/tensor_map.h"
#include "runtime/device/wgmma.cuh"

namespace panthera::cuda {

// A warpgroup's rows of a tile of scores.
inline constexpr int kGroupRows = 64;
inline constexpr int kGroupWarps = kWarpgroupThreads / kWarpThreads;

// Where tiles of panels begin in shared memory, and the block's shared memory from there on.
inline constexpr size_t kSharedAlignment = 1024;
__device__ inline unsigned char* AlignedShared() {
  auto* const memory = DynamicShared<unsigned char>();
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(memory));
  return memory + (-address & (unsigned{kSharedAlignment} - 1));
}

// The warpgroup of a thread among those that compute: the first of the block only loads.
__device__ inline int ComputeGroup() {
  // From one lane, so that the compiler knows it to be the warp's.
  return __shfl_sync(kWholeWarp, static_cast<int>(threadIdx.x) / kWarpgroupThreads, 0) - 1;
}
// The first of the 16 rows of a thread's warp among those of its warpgroup.
__device__ inline int WarpRow() { return Warp() % kGroupWarps * 16; }

// The same number, of which the compiler knows nothing: what is computed from it is not computed
// early and kept in registers that products need.
__device__ inline int Unknown(int number) {
  asm volatile("" : "+r"(number));
  return number;
}

// The heads, as copies of boxes of kRows rows find them.
template <int kRows>
TensorMap MapOf(const HeadsView<const BF16>& heads, int heads_of_token, int64_t batch) {
  constexpr uint64_t kBytes = sizeof(BF16);
  const auto row_bytes = static_cast<uint64_t>(heads.stride) * kBytes;
  const auto tokens = static_cast<uint64_t>(heads.tokens);
  return MakeTensorMap(
      {.first = heads.first,
       .sizes = {static_cast<uint64_t>(heads.width), static_cast<uint64_t>(heads_of_token), tokens,
                 static_cast<uint64_t>(batch)},
       .stride_bytes = {static_cast<uint64_t>(heads.width) * kBytes, row_bytes, tokens * row_bytes},
       .box = {64, 1, kRows, 1}});
}

// The maps of all bands' q and k, for boxes of kQueryRows and kKeyRows rows.
template <int kQueryRows, int kKeyRows>
void MapBands(const AttentionView<BF16>& attention, int64_t batch,
              TensorMap (&q)[kMostAttentionBands], TensorMap (&k)[kMostAttentionBands]) {
  for (int band = 0; band < attention.band_count; ++band) {
    q[band] = MapOf<kQueryRows>(attention.bands[band].q, attention.heads, batch);
    k[band] = MapOf<kKeyRows>(attention.bands[band].k, attention.kv_heads, batch);
  }
}

// Begins to copy rows [row, row + kRows) of a head; rows that the head does not have become zeros.
template <int kRows, int kWidth>
__device__ void BeginHeadCopy(const TensorMap& map, int b, int h, int row, PhaseBarrier& barrier,
                              PanelTile<kRows, kWidth> tile) {
  using Tile = PanelTile<kRows, kWidth>;
#pragma unroll
  for (int panel = 0; panel < Tile::kPanels; ++panel) {
    BeginBoxCopy(map, panel * Tile::kPanelColumns, h, row, b, barrier, tile.Panel(panel));
  }
}

// A place in a ring of kStages stages.
template <int kStages>
struct RingPlace {
  __device__ void Advance() {
    ++stage;
    if (stage == kStages) {
      stage = 0;
      parity ^= 1U;
    }
  }
  __device__ int stage_before() const { return stage == 0 ? kStages - 1 : stage - 1; }

  int stage = 0;
  unsigned parity = 0;  // of the phase in which the stage is full for this use
};

// Tells the one who loads that this warp no longer reads.
__device__ inline void Release(PhaseBarrier& empty) {
  __syncwarp();
  if (Lane() == 0) {
    empty.Arrive();
  }
}

// How a block's share of work is found. Tiles are put in pairs, a tile and its mirror image from
// the other end of the sequence: under a causal mask pairs are equally long, so that blocks that
// take the same number of them are done at the same time. Pairs of a head are neighbours, so that
// what they read stays in the cache that multiprocessors share. Where there are fewer pairs than
// multiprocessors, a block takes a single tile.
struct WorkOrder {
  int tiles;        // of a head
  int pairs;        // of a head; of an odd number of tiles the first pair lacks one
  int count;        // tiles of all heads, with those that are lacking
  int blocks;       // that share them
  int first_scale;  // A block begins at its index times this
  int first_step;   // and goes on by this and its difference from 2 * blocks in turn.
};

// Walks through a block's work.
class WorkWalk {
 public:
  __device__ explicit WorkWalk(const WorkOrder& order)
      : order_(order),
        index_(static_cast<int>(blockIdx.x) * order.first_scale),
        step_(order.first_step) {
    SkipMissing();
  }

  __device__ bool IsDone() const { return index_ >= order_.count; }
  __device__ void Next() {
    Step();
    SkipMissing();
  }
  // The same place, found anew in place of what registers would keep.
  __device__ WorkWalk Again() const {
    WorkWalk walk = *this;
    walk.index_ = Unknown(index_);
    return walk;
  }
  __device__ int head() const { return index_ / (2 * order_.pairs); }
  __device__ int tile() const {
    const int of_head = index_ % (2 * order_.pairs);
    return of_head % 2 == 0 ? 2 * order_.pairs - 1 - of_head / 2 : of_head / 2;
  }

 private:
  __device__ void Step() {
    index_ += step_;
    step_ = 2 * order_.blocks - step_;
  }
  __device__ void SkipMissing() {
    if (tile() >= order_.tiles) {
      Step();
    }
  }

  const WorkOrder& order_;
  int index_;
  int step_;
};

inline WorkOrder MakeWorkOrder(int64_t heads, int64_t tiles, int64_t multiprocessors) {
  const int64_t pairs = CeilDiv(tiles, int64_t{2});
  const bool is_paired = pairs * heads >= multiprocessors;
  const int64_t blocks = is_paired ? multiprocessors : 2 * pairs * heads;
  return {.tiles = static_cast<int>(tiles),
          .pairs = static_cast<int>(pairs),
          .count = static_cast<int>(2 * pairs * heads),
          .blocks = static_cast<int>(blocks),
          .first_scale = is_paired ? 2 : 1,
          .first_step = is_paired ? 1 : static_cast<int>(blocks)};
}

// kQueries query rows of a head.
template <int kQueries>
struct QueryWork {
  __device__ QueryWork(const AttentionView<BF16>& attention, const WorkWalk& at) {
    rows = RangeUpTo(at.tile() * kQueries, kQueries, attention.queries);
    h = at.head() % attention.heads;
    b = at.head() / attention.heads;
    kv_head = h / (attention.heads / attention.kv_heads);
    constants = static_cast<int64_t>(at.head()) * attention.queries;
    first_position = attention.first_position();
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

// Walks through the tiles of kKeys keys that queries at `positions` see, band after band.
template <int kKeys>
class KeyTiles {
 public:
  __device__ KeyTiles(const AttentionView<BF16>& attention, Range positions)
      : attention_(attention), positions_(positions) {}

  // Goes to the first or the next tile; false: there is none.
  __device__ bool Next() {
    key += kKeys;
    begins_band = false;
    while (key >= end_) {
      ++band;
      if (band >= attention_.band_count) {
        return false;
      }
      const Range seen = VisibleKeys(attention_.bands[band], positions_);
      key = seen.begin / kKeys * kKeys;
      end_ = seen.is_empty() ? key : seen.end;
      begins_band = true;
    }
    return true;
  }
  __device__ bool ends_band() const { return key + kKeys >= end_; }

  int band = -1;
  int key = -kKeys;
  bool begins_band = false;

 private:
  const AttentionView<BF16>& attention_;
  Range positions_;
  int end_ = -kKeys;
};

// Turn of attention_warp.cuh, which loads the angles of both columns that a thread holds at once.
template <int kColumnTiles>
__device__ void TurnRows(RotationView table, Range rows, float direction,
                         Sums<1, kColumnTiles>& sums) {
  constexpr int kHalf = kColumnTiles / 2;
  if (table.cos == nullptr) {
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const int row = rows.begin + Sums<1, 1>::Row(0, i);
    if (row >= rows.end) {
      continue;
    }
    const int64_t first = static_cast<int64_t>(row) * (kHalf * 8) + Sums<1, 1>::Column(0, 0);
#pragma unroll
    for (int n = 0; n < kHalf; ++n) {
      const float2 cos = *reinterpret_cast<const float2*>(table.cos + first + n * 8);
      const float2 sin = *reinterpret_cast<const float2*>(table.sin + first + n * 8);
      Turn(cos.x, direction * sin.x, sums.values[0][n][i], sums.values[0][n + kHalf][i]);
      Turn(cos.y, direction * sin.y, sums.values[0][n][i + 1], sums.values[0][n + kHalf][i + 1]);
    }
  }
}

// The maps of a tensor's heads: of band b, maps[b * step]. With step 0 all bands share the tensor.
struct BandMaps {
  const TensorMap* maps;
  int step;

  __device__ const TensorMap& Of(int band) const { return maps[band * step]; }
};

// The warps of the first warpgroup each copy one tensor, tile after tile as places become free; so
// each gets along with few registers. All of these are one thread's work.
//
// Tiles of the keys, or the values, that a block's queries see, into a ring that begins at `tiles`.
template <int kQueries, int kStages, int kKeys, int kWidth>
__device__ void LoadKeyTiles(const AttentionView<BF16>& attention, const WorkOrder& order,
                             BandMaps maps, PanelTile<kKeys, kWidth> tiles,
                             PhaseBarrier (&full)[kStages], PhaseBarrier (&empty)[kStages]) {
  using Tile = PanelTile<kKeys, kWidth>;
  RingPlace<kStages> place;
  for (WorkWalk at(order); !at.IsDone(); at.Next()) {
    const QueryWork<kQueries> work(attention, at);
    KeyTiles<kKeys> tile(attention, work.positions(work.rows));
    while (tile.Next()) {
      const int stage = place.stage;
      empty[stage].Wait(place.parity ^ 1U);
      full[stage].ArriveExpecting(Tile::kBytes);
      BeginHeadCopy(maps.Of(tile.band), work.b, work.kv_head, tile.key, full[stage],
                    Tile{tiles.memory + stage * Tile::kBytes});
      place.Advance();
    }
  }
}

// The rows of kGroups warpgroups, from `row` on.
template <int kGroups, int kWidth>
__device__ void LoadGroupRows(const TensorMap& map, int b, int h, int row,
                              PanelTile<kGroupRows, kWidth> tiles, RingPlace<1>& place,
                              PhaseBarrier& full, PhaseBarrier& empty) {
  using Tile = PanelTile<kGroupRows, kWidth>;
  empty.Wait(place.parity ^ 1U);
  full.ArriveExpecting(kGroups * Tile::kBytes);
  for (int group = 0; group < kGroups; ++group) {
    BeginHeadCopy(map, b, h, row + group * kGroupRows, full,
                  Tile{tiles.memory + group * Tile::kBytes});
  }
  place.Advance();
}

// A block's queries, again for every band whose keys they see, or once for all bands.
template <int kGroups, int kKeys, int kWidth>
__device__ void LoadQueryRows(const AttentionView<BF16>& attention, const WorkOrder& order,
                              BandMaps maps, PanelTile<kGroupRows, kWidth> tiles,
                              PhaseBarrier& full, PhaseBarrier& empty) {
  RingPlace<1> place;
  for (WorkWalk at(order); !at.IsDone(); at.Next()) {
    const QueryWork<kGroups * kGroupRows> work(attention, at);
    KeyTiles<kKeys> tile(attention, work.positions(work.rows));
    bool is_due = true;
    while (tile.Next()) {
      if (tile.begins_band && is_due) {
        LoadGroupRows<kGroups>(maps.Of(tile.band), work.b, work.h, work.rows.begin, tiles, place,
                               full, empty);
        is_due = maps.step != 0;
      }
    }
  }
}

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_HOPPER_CUH_
