#include <cstddef>
#include <cstdint>

#include "model/ops/attention_hopper.cuh"
#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

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

// Calls load(tile) for the tiles of queries of all of a block's work.
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
__device__ void Load(const HopperKeyGradientArguments& arguments,
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

// A computing warpgroup: rows of scores are its keys, and columns queries. While a tile's last
// product runs, so do the scores of the next one. The sum of dk is kept in the basis of the band's
// rotation, and turned from one to the next.
template <int kWidth>
class KeyGradientGroup {
 public:
  using Shape = HopperKeyGradientShape<kWidth>;
  static constexpr int kQueries = Shape::kQueries;
  using Scores = Sums<1, kQueries / 8>;
  using Result = Sums<1, kWidth / 8>;

  __device__ KeyGradientGroup(const HopperKeyGradientArguments& arguments,
                              const HopperKeyGradientMemory<kWidth>& shared)
      : arguments_(arguments),
        attention_(arguments.base.attention),
        shared_(shared),
        barriers_(shared.barriers()),
        group_(ComputeGroup()) {}

  __device__ void Run() {
    for (WorkWalk at(arguments_.order); !at.IsDone(); at.Next()) {
      Compute(at);
    }
  }

 private:
  __device__ void Compute(const WorkWalk& at) {
    const KeyWork<Shape::kKeys> work(attention_, at);
    const Range keys = RangeUpTo(work.keys.begin + group_ * kGroupRows, kGroupRows, work.keys.end);
    const Range warp_keys{keys.begin + WarpRow(), keys.end};
    QueryTiles<kQueries> tile(attention_, arguments_.group, work.keys);
    Result dk;
    Result dv;
    SetZero(dk);
    SetZero(dv);
    // Every key is seen by a query at its own position, if there is one.
    bool is_left = tile.Next();
    if (is_left) {
      barriers_.v_full.Wait(v_place_.parity);
      v_place_.Advance();
      do {
        barriers_.k_full.Wait(k_place_.parity);
        k_place_.Advance();
        const RotationView rotation = attention_.bands[tile.band].k_rotation;
        if (!tile.begins_work) {
          TurnRows(rotation, warp_keys, 1.0F, dk);
        }
        is_left = AddBand(keys, tile, dk, dv);
        Release(barriers_.k_empty);
        TurnRows(rotation, warp_keys, -1.0F, dk);
      } while (is_left);
      Release(barriers_.v_empty);
    }
    const BackwardArguments<BF16>& base = arguments_.base;
    Store(at.Again(), attention_.scale, base.dk, dk);
    Store(at.Again(), 1, base.dv, dv);
  }

  __device__ void Store(const WorkWalk& at, float factor, const HeadsView<BF16>& to,
                        const Result& result) {
    const KeyWork<Shape::kKeys> work(attention_, at);
    const int first_key = work.keys.begin + group_ * kGroupRows + WarpRow();
    __syncwarp();  // what was stored before is on its way
    StoreRows<1, kWidth>(result, [&](int, int) { return factor; }, shared_.result(group_),
                         Unknown(WarpRow()), to.Head(work.b, work.kv_head), to.stride,
                         {first_key, work.keys.end});
  }

  // Adds what the queries of a band give, from its first tile on. Returns whether a band is left.
  __device__ bool AddBand(Range keys, QueryTiles<kQueries>& tile, Result& dk, Result& dv) {
    AddTile(
        keys, tile, [] {}, dk, dv);
    bool is_left = tile.Next();
    while (is_left && !tile.begins_band) {
      const int stage_before = place_.stage_before();
      AddTile(
          keys, tile,
          [&] {
            WaitForProducts<1>(dk.values[0], dv.values[0]);
            Release(barriers_.empty[stage_before]);
          },
          dk, dv);
      is_left = tile.Next();
    }
    WaitForProducts<0>(dk.values[0], dv.values[0]);
    Release(barriers_.empty[place_.stage_before()]);
    return is_left;
  }

  // Adds what a tile gives; the last products are begun on return. finish_tile_before() waits for
  // those of the tile before, when the next product has been begun.
  template <typename Function>
  __device__ void AddTile(Range keys, const QueryTiles<kQueries>& tile,
                          Function&& finish_tile_before, Result& dk, Result& dv) {
    Scores p;
    Scores dscores;
    const int stage = place_.stage;
    barriers_.q_full[stage].Wait(place_.parity);
    FenceProducts();
    BeginProductOfRows(shared_.k(group_), 0, shared_.q(stage), p.values[0]);
    CommitProducts();
    finish_tile_before();
    barriers_.dout_full[stage].Wait(place_.parity);
    FenceProducts();
    BeginProductOfRows(shared_.v(group_), 0, shared_.dout(stage), dscores.values[0]);
    CommitProducts();
    WaitForProducts<1>(p.values[0]);
    ToProbabilities(keys, tile, shared_.log2_lse(stage), p);
    WaitForProducts<0>(dscores.values[0]);
    const float* const delta = shared_.delta(stage);
    dscores.ForEach([&](int m, int n, int i) {
      dscores.values[m][n][i] =
          p.values[m][n][i] * (dscores.values[m][n][i] - delta[Scores::Column(n, i)]);
    });
    RoundedSums<1, kQueries / 8> rounded_p(p);
    RoundedSums<1, kQueries / 8> rounded(dscores);
    FenceProducts(dv.values[0], dk.values[0], rounded_p.pairs[0], rounded.pairs[0]);
    BeginProduct<kQueries, kWidth>(rounded_p.pairs[0], shared_.dout(stage), dv.values[0]);
    BeginProduct<kQueries, kWidth>(rounded.pairs[0], shared_.q(stage), dk.values[0]);
    CommitProducts();
    place_.Advance();
  }

  // Scores become probabilities, 0 where a query does not see a row's key.
  __device__ void ToProbabilities(Range keys, const QueryTiles<kQueries>& tile,
                                  const float* log2_lse, Scores& p) {
    const float log2_scale = attention_.scale * kLog2E;
    p.ForEach([&](int m, int n, int i) {
      p.values[m][n][i] =
          Probability(p.values[m][n][i], log2_scale, log2_lse[Scores::Column(n, i)]);
    });
    const BandView<BF16>& band = attention_.bands[tile.band];
    const Range rows = RangeUpTo(tile.row, kQueries, attention_.queries);
    const Range positions{attention_.first_position() + rows.begin,
                          attention_.first_position() + rows.end};
    if (VisibilityOf(band, positions, keys) != Visibility::kAll) {
      const int first = positions.begin - keys.begin - WarpRow();
      p.ForEach([&](int m, int n, int i) {
        const int distance = first + p.Column(n, i) - p.Row(m, i);
        p.values[m][n][i] = Sees(band, distance) ? p.values[m][n][i] : 0.0F;
      });
    }
  }

  const HopperKeyGradientArguments& arguments_;
  const AttentionView<BF16>& attention_;
  const HopperKeyGradientMemory<kWidth>& shared_;
  typename HopperKeyGradientMemory<kWidth>::Barriers& barriers_;
  int group_;
  RingPlace<1> k_place_;
  RingPlace<1> v_place_;
  RingPlace<Shape::kStages> place_;
};

template <int kWidth>
__global__ void __launch_bounds__(HopperKeyGradientShape<kWidth>::kThreads, 1)
    HopperKeyGradientKernel(const __grid_constant__ HopperKeyGradientArguments arguments) {
  using Shape = HopperKeyGradientShape<kWidth>;
  const HopperKeyGradientMemory<kWidth> shared{AlignedShared()};
  if (threadIdx.x == 0) {
    shared.Init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    ShrinkRegisters<Shape::kLoadRegisters>();
    Load(arguments, shared);
  } else {
    GrowRegisters<Shape::kComputeRegisters>();
    KeyGradientGroup<kWidth>(arguments, shared).Run();
  }
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const BackwardArguments<BF16>& base, int64_t batch) {
  using Shape = HopperKeyGradientShape<kWidth>;
  const AttentionView<BF16>& attention = base.attention;
  const int multiprocessors = Multiprocessors(stream);
  HopperKeyGradientArguments arguments{
      .base = base,
      .order = MakeWorkOrder(batch * attention.kv_heads, CeilDiv(attention.keys, Shape::kKeys),
                             multiprocessors),
      .group = attention.heads / attention.kv_heads,
      .q = {},
      .k = {},
      .v = MapOf<kGroupRows>(attention.v, attention.kv_heads, batch),
      .dout = MapOf<Shape::kQueries>(base.dout, attention.heads, batch)};
  for (int band = 0; band < attention.band_count; ++band) {
    arguments.q[band] = MapOf<Shape::kQueries>(attention.bands[band].q, attention.heads, batch);
    arguments.k[band] = MapOf<kGroupRows>(attention.bands[band].k, attention.kv_heads, batch);
  }
  Launch(stream,
         {GridOf(arguments.order.blocks), dim3(Shape::kThreads),
          HopperKeyGradientMemory<kWidth>::kBytes},
         &HopperKeyGradientKernel<kWidth>, arguments);
}

}  // namespace

void LaunchHopperKeyGradient(Stream& stream, const BackwardArguments<BF16>& arguments,
                             int64_t batch) {
  if (arguments.attention.v.width == 64) {
    LaunchOfWidth<64>(stream, arguments, batch);
  } else {
    LaunchOfWidth<128>(stream, arguments, batch);
  }
}

}  // namespace panthera::cuda
