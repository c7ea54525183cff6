// The key gradient on Hopper: its shapes, its shared memory, and the warps that load.
#ifndef PANTHERA_MODEL_OPS_ATTENTION_KEY_GRADIENT_HOPPER_CUH_
#define PANTHERA_MODEL_OPS_ATTENTION_KEY_GRADIENT_HOPPER_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "model/ops/attention_hopper.cuh"
#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/device/bulk_copy.cuh"
#include "runtime/device/tensor_map.h"
#include "runtime/device/wgmma.cuh"

namespace panthera::cuda {

// A warpgroup that loads, and others that compute, with 64 keys each.
template <int kWidth>
struct HopperKeyGradientShape {
  static constexpr int kGroups = 2;
  static constexpr int kThreads = (1 + kGroups) * kWarpgroupThreads;
  static constexpr int kKeys = kGroups * kGroupRows;
  // As many as registers have room for the scores of, beside dk and dv.
  static constexpr int kQueries = kWidth == 64 ? 128 : 64;
  static constexpr int kStages = kWidth == 64 ? 4 : 3;
  static constexpr int kLoadRegisters = kWidth == 64 ? 40 : 24;
  static constexpr int kComputeRegisters = kWidth == 64 ? 232 : 240;
};

struct HopperKeyGradientArguments {
  BackwardArguments<BF16> base;
  WorkOrder order;
  int group;  // query heads that share a key/value head
  TensorMap q[kMostAttentionBands];
  TensorMap k[kMostAttentionBands];
  TensorMap v;
  TensorMap dout;
};

template <int kWidth>
struct HopperKeyGradientMemory {
  using Shape = HopperKeyGradientShape<kWidth>;
  using KeyTile = PanelTile<kGroupRows, kWidth>;
  using QueryTile = PanelTile<Shape::kQueries, kWidth>;

  struct Barriers {
    PhaseBarrier k_full;
    PhaseBarrier k_empty;
    PhaseBarrier v_full;
    PhaseBarrier v_empty;
    PhaseBarrier q_full[Shape::kStages];
    PhaseBarrier dout_full[Shape::kStages];
    PhaseBarrier empty[Shape::kStages];  // of both
  };
  static constexpr int kKeyBytes = Shape::kGroups * KeyTile::kBytes;
  static constexpr int kQueryBytes = Shape::kStages * QueryTile::kBytes;
  static constexpr int kTileBytes = 3 * kKeyBytes + 2 * kQueryBytes;
  static constexpr int kFloatBytes = 2 * Shape::kStages * Shape::kQueries * int{sizeof(float)};
  static constexpr size_t kBytes = kTileBytes + kFloatBytes + sizeof(Barriers) + kSharedAlignment;

  __device__ KeyTile k(int group) const { return {memory + group * KeyTile::kBytes}; }
  __device__ KeyTile v(int group) const { return {memory + kKeyBytes + group * KeyTile::kBytes}; }
  // Where a warpgroup's results stand before they are stored.
  __device__ SharedTile<kWidth> result(int group) const {
    return {memory + 2 * kKeyBytes + group * KeyTile::kBytes};
  }
  __device__ QueryTile q(int stage) const {
    return {memory + 3 * kKeyBytes + stage * QueryTile::kBytes};
  }
  __device__ QueryTile dout(int stage) const {
    return {memory + 3 * kKeyBytes + kQueryBytes + stage * QueryTile::kBytes};
  }
  // lse * log2(e) of a stage's queries, and their delta.
  __device__ float* log2_lse(int stage) const { return Floats(2 * stage); }
  __device__ float* delta(int stage) const { return Floats(2 * stage + 1); }
  __device__ Barriers& barriers() const {
    return *reinterpret_cast<Barriers*>(memory + kTileBytes + kFloatBytes);
  }
  __device__ void Init() const {
    constexpr unsigned kWarps = Shape::kGroups * kGroupWarps;
    barriers().k_full.Init(1);
    barriers().k_empty.Init(kWarps);
    barriers().v_full.Init(1);
    barriers().v_empty.Init(kWarps);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      barriers().q_full[stage].Init(1 + kWarpThreads);
      barriers().dout_full[stage].Init(1);
      barriers().empty[stage].Init(kWarps);
    }
    PublishBarriers();
  }

  unsigned char* memory;

 private:
  __device__ float* Floats(int row) const {
    return reinterpret_cast<float*>(memory + kTileBytes) + row * Shape::kQueries;
  }
};

// kKeys keys of a key/value head.
template <int kKeys>
struct KeyWork {
  __device__ KeyWork(const AttentionView<BF16>& attention, const WorkWalk& at) {
    keys = RangeUpTo(at.tile() * kKeys, kKeys, attention.keys);
    kv_head = at.head() % attention.kv_heads;
    b = at.head() / attention.kv_heads;
  }

  Range keys;
  int kv_head;
  int b;
};

// Walks through the tiles of kQueries query rows that see some of the keys: band after band, in
// each through the `group` query heads that share the keys.
template <int kQueries>
class QueryTiles {
 public:
  __device__ QueryTiles(const AttentionView<BF16>& attention, int group, Range keys)
      : attention_(attention), group_(group), keys_(keys) {}

  // Goes to the first or the next tile; false: there is none.
  __device__ bool Next() {
    row += kQueries;
    begins_work = band < 0;
    begins_band = false;
    while (row >= end_) {
      ++head;
      if (head >= group_) {
        if (!NextBand()) {
          return false;
        }
      }
      row = first_row_;
    }
    return true;
  }

  int band = -1;
  int head = -1;  // of the group
  int row = 0;
  bool begins_work = false;
  bool begins_band = false;

 private:
  __device__ bool NextBand() {
    do {
      ++band;
      if (band >= attention_.band_count) {
        return false;
      }
      const Range seeing = SeeingQueries(attention_, attention_.bands[band], keys_);
      first_row_ = seeing.begin / kQueries * kQueries;
      end_ = seeing.is_empty() ? first_row_ : seeing.end;
    } while (first_row_ >= end_);
    head = 0;
    begins_band = true;
    return true;
  }

  const AttentionView<BF16>& attention_;
  int group_;
  Range keys_;
  int first_row_ = 0;
  int end_ = 0;
};

// Calls load(work, tile) for the tiles of queries of all of a block's work.
template <int kWidth, typename Function>
__device__ void ForEachTile(const HopperKeyGradientArguments& arguments, Function&& load) {
  using Shape = HopperKeyGradientShape<kWidth>;
  const AttentionView<BF16>& attention = arguments.base.attention;
  for (WorkWalk at(arguments.order); !at.IsDone(); at.Next()) {
    const KeyWork<Shape::kKeys> work(attention, at);
    QueryTiles<Shape::kQueries> tile(attention, arguments.group, work.keys);
    while (tile.Next()) {
      load(work, tile);
    }
  }
}

// A block's keys, again for every band that sees them, or its values, once for all bands.
template <int kWidth>
__device__ void LoadKeyRows(const HopperKeyGradientArguments& arguments, BandMaps maps,
                            typename HopperKeyGradientMemory<kWidth>::KeyTile tiles,
                            PhaseBarrier& full, PhaseBarrier& empty) {
  using Shape = HopperKeyGradientShape<kWidth>;
  RingPlace<1> place;
  ForEachTile<kWidth>(arguments, [&](const auto& work, const auto& tile) {
    if (maps.step == 0 ? tile.begins_work : tile.begins_band) {
      LoadGroupRows<Shape::kGroups>(maps.Of(tile.band), work.b, work.kv_head, work.keys.begin,
                                    tiles, place, full, empty);
    }
  });
}

// Tiles of the queries and of dout.
template <int kWidth>
__device__ void LoadQueryTiles(const HopperKeyGradientArguments& arguments,
                               const HopperKeyGradientMemory<kWidth>& shared) {
  using Tile = typename HopperKeyGradientMemory<kWidth>::QueryTile;
  auto& barriers = shared.barriers();
  RingPlace<HopperKeyGradientShape<kWidth>::kStages> place;
  ForEachTile<kWidth>(arguments, [&](const auto& work, const auto& tile) {
    const int stage = place.stage;
    const int h = work.kv_head * arguments.group + tile.head;
    barriers.empty[stage].Wait(place.parity ^ 1U);
    barriers.q_full[stage].ArriveExpecting(Tile::kBytes);
    BeginHeadCopy(arguments.q[tile.band], work.b, h, tile.row, barriers.q_full[stage],
                  shared.q(stage));
    barriers.dout_full[stage].ArriveExpecting(Tile::kBytes);
    BeginHeadCopy(arguments.dout, work.b, h, tile.row, barriers.dout_full[stage],
                  shared.dout(stage));
    place.Advance();
  });
}

// lse and delta of the same tiles, zeros after the last query: a warp's work.
template <int kWidth>
__device__ void LoadFloats(const HopperKeyGradientArguments& arguments,
                           const HopperKeyGradientMemory<kWidth>& shared) {
  using Shape = HopperKeyGradientShape<kWidth>;
  const AttentionView<BF16>& attention = arguments.base.attention;
  auto& barriers = shared.barriers();
  RingPlace<Shape::kStages> place;
  ForEachTile<kWidth>(arguments, [&](const auto& work, const auto& tile) {
    const int stage = place.stage;
    barriers.empty[stage].Wait(place.parity ^ 1U);
#pragma unroll 1
    for (int i = Lane(); i < Shape::kQueries; i += kWarpThreads) {
      const int row = tile.row + i;
      float lse = 0;
      float delta = 0;
      if (row < attention.queries) {
        const int head = work.b * attention.heads + work.kv_head * arguments.group + tile.head;
        const int64_t place_of_row = static_cast<int64_t>(head) * attention.queries + row;
        lse = arguments.base.lse[place_of_row];
        delta = arguments.base.delta[place_of_row];
      }
      shared.log2_lse(stage)[i] = lse * kLog2E;
      shared.delta(stage)[i] = delta;
    }
    barriers.q_full[stage].Arrive();
    place.Advance();
  });
}

// The loading warps: one thread of each that copies, all of the one that stores floats.
template <int kWidth>
__device__ void LoadForKeyGradient(const HopperKeyGradientArguments& arguments,
                                   const HopperKeyGradientMemory<kWidth>& shared) {
  auto& barriers = shared.barriers();
  if (Warp() == 3) {
    LoadFloats(arguments, shared);
  } else if (Lane() != 0) {
    return;
  } else if (Warp() == 0) {
    LoadKeyRows<kWidth>(arguments, {arguments.k, 1}, shared.k(0), barriers.k_full,
                        barriers.k_empty);
  } else if (Warp() == 1) {
    LoadQueryTiles(arguments, shared);
  } else {
    LoadKeyRows<kWidth>(arguments, {&arguments.v, 0}, shared.v(0), barriers.v_full,
                        barriers.v_empty);
  }
}

}  // namespace panthera::cuda

#endif  // PANTHERA_MODEL_OPS_ATTENTION_KEY_GRADIENT_HOPPER_CUH_
