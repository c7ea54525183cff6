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

// A warpgroup that loads, and others that compute, with 64 query rows each.
template <int kWidth>
struct HopperQueryGradientShape {
  static constexpr int kGroups = 2;
  static constexpr int kThreads = (1 + kGroups) * kWarpgroupThreads;
  static constexpr int kQueries = kGroups * kGroupRows;
  static constexpr int kKeys = 128;
  static constexpr int kStages = kWidth == 64 ? 4 : 2;
  static constexpr int kLoadRegisters = 24;
  static constexpr int kComputeRegisters = 240;
};

struct HopperQueryGradientArguments {
  BackwardArguments<BF16> base;
  WorkOrder order;
  TensorMap q[kMostAttentionBands];
  TensorMap k[kMostAttentionBands];
  TensorMap v;
  TensorMap dout;
};

template <int kWidth>
struct HopperQueryGradientMemory {
  using Shape = HopperQueryGradientShape<kWidth>;
  using QueryTile = PanelTile<kGroupRows, kWidth>;
  using KeyTile = PanelTile<Shape::kKeys, kWidth>;

  struct Barriers {
    PhaseBarrier q_full;
    PhaseBarrier q_empty;
    PhaseBarrier dout_full;
    PhaseBarrier dout_empty;
    PhaseBarrier k_full[Shape::kStages];
    PhaseBarrier k_empty[Shape::kStages];
    PhaseBarrier v_full[Shape::kStages];
    PhaseBarrier v_empty[Shape::kStages];
  };
  static constexpr int kQueryBytes = Shape::kGroups * QueryTile::kBytes;
  static constexpr int kKeyBytes = Shape::kStages * KeyTile::kBytes;
  static constexpr int kTileBytes = 3 * kQueryBytes + 2 * kKeyBytes;
  static constexpr int kFloatBytes = Shape::kQueries * int{sizeof(float)};
  static constexpr size_t kBytes = kTileBytes + kFloatBytes + sizeof(Barriers) + kSharedAlignment;

  __device__ QueryTile q(int group) const { return {memory + group * QueryTile::kBytes}; }
  __device__ QueryTile dout(int group) const {
    return {memory + kQueryBytes + group * QueryTile::kBytes};
  }
  // Where a warpgroup's results stand before they are stored.
  __device__ SharedTile<kWidth> dq(int group) const {
    return {memory + 2 * kQueryBytes + group * QueryTile::kBytes};
  }
  __device__ KeyTile k(int stage) const {
    return {memory + 3 * kQueryBytes + stage * KeyTile::kBytes};
  }
  __device__ KeyTile v(int stage) const {
    return {memory + 3 * kQueryBytes + kKeyBytes + stage * KeyTile::kBytes};
  }
  // Of a warpgroup's rows.
  __device__ float* delta(int group) const {
    return reinterpret_cast<float*>(memory + kTileBytes) + group * kGroupRows;
  }
  __device__ Barriers& barriers() const {
    return *reinterpret_cast<Barriers*>(memory + kTileBytes + kFloatBytes);
  }
  __device__ void Init() const {
    constexpr unsigned kWarps = Shape::kGroups * kGroupWarps;
    barriers().q_full.Init(1);
    barriers().q_empty.Init(kWarps);
    barriers().dout_full.Init(1);
    barriers().dout_empty.Init(kWarps);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      barriers().k_full[stage].Init(1);
      barriers().k_empty[stage].Init(kWarps);
      barriers().v_full[stage].Init(1);
      barriers().v_empty[stage].Init(kWarps);
    }
    PublishBarriers();
  }

  unsigned char* memory;
};

// One thread of every loading warp.
template <int kWidth>
__device__ void LoadTiles(const HopperQueryGradientArguments& arguments,
                          const HopperQueryGradientMemory<kWidth>& shared) {
  using Shape = HopperQueryGradientShape<kWidth>;
  const AttentionView<BF16>& attention = arguments.base.attention;
  auto& barriers = shared.barriers();
  if (Warp() == 0) {
    LoadQueryRows<Shape::kGroups, Shape::kKeys>(attention, arguments.order, {arguments.q, 1},
                                                shared.q(0), barriers.q_full, barriers.q_empty);
  } else if (Warp() == 1) {
    LoadKeyTiles<Shape::kQueries>(attention, arguments.order, {arguments.k, 1}, shared.k(0),
                                  barriers.k_full, barriers.k_empty);
  } else if (Warp() == 2) {
    LoadKeyTiles<Shape::kQueries>(attention, arguments.order, {&arguments.v, 0}, shared.v(0),
                                  barriers.v_full, barriers.v_empty);
  } else if (Warp() == 3) {
    LoadQueryRows<Shape::kGroups, Shape::kKeys>(attention, arguments.order, {&arguments.dout, 0},
                                                shared.dout(0), barriers.dout_full,
                                                barriers.dout_empty);
  }
}

// A computing warpgroup. While the product of a tile's gradients and keys runs, so do the scores of
// the next one. The sum of dq is kept in the basis of the band's rotation, and turned from one to
// the next.
template <int kWidth>
class QueryGradientGroup {
 public:
  using Shape = HopperQueryGradientShape<kWidth>;
  static constexpr int kKeys = Shape::kKeys;
  using Scores = Sums<1, kKeys / 8>;

  __device__ QueryGradientGroup(const HopperQueryGradientArguments& arguments,
                                const HopperQueryGradientMemory<kWidth>& shared)
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
  // What a row's scores are turned back into probabilities with. For rows beyond the last query any
  // finite values do: their dout is 0, and so is all that they add.
  struct RowConstants {
    float log2_lse[2] = {0, 0};
    float delta[2] = {0, 0};
  };
  // Also stores delta, for the kernel of the key gradient.
  __device__ RowConstants Constants(const QueryWork<Shape::kQueries>& work, Range warp_rows) {
    constexpr int kRowLanes = kWidth / 8;  // 16 bytes each
    constexpr int kRowsAtOnce = kWarpThreads / kRowLanes;
    constexpr int kRounds = 16 / kRowsAtOnce;
    const BackwardArguments<BF16>& base = arguments_.base;
    const int first = warp_rows.begin + Lane() / kRowLanes;
    const int column = Lane() % kRowLanes * 8;
    // All loads are on their way before the first sum: there is nothing else to do meanwhile.
    uint4 x[kRounds];
    uint4 y[kRounds];
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const int row = first + round * kRowsAtOnce;
      x[round] = y[round] = {0, 0, 0, 0};
      if (row < warp_rows.end) {
        x[round] = *reinterpret_cast<const uint4*>(base.dout.Row(work.b, row, work.h) + column);
        y[round] = *reinterpret_cast<const uint4*>(base.out.Row(work.b, row, work.h) + column);
      }
    }
    RowConstants constants;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_rows.begin + Sums<1, 1>::Row(0, half * 2);
      if (row < warp_rows.end) {
        constants.log2_lse[half] = base.lse[work.constants + row] * kLog2E;
      }
    }
    float* const shared_delta = shared_.delta(group_) + WarpRow();
    __syncwarp();  // the deltas before have been read
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      float sum = DotOfPairs(x[round].x, y[round].x, DotOfPairs(x[round].y, y[round].y, 0));
      sum = DotOfPairs(x[round].z, y[round].z, DotOfPairs(x[round].w, y[round].w, sum));
#pragma unroll
      for (int offset = kRowLanes / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kWholeWarp, sum, offset);
      }
      const int row = first + round * kRowsAtOnce;
      if (Lane() % kRowLanes == 0) {
        shared_delta[row - warp_rows.begin] = sum;
        if (row < warp_rows.end) {
          base.delta[work.constants + row] = sum;
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      constants.delta[half] = shared_delta[Sums<1, 1>::Row(0, half * 2)];
    }
    return constants;
  }

  // Scores become probabilities, 0 where a row does not see the key.
  __device__ void ToProbabilities(const KeyTiles<kKeys>& tile, Range positions,
                                  const RowConstants& constants, Scores& scores) {
    const float log2_scale = attention_.scale * kLog2E;
    scores.ForEach([&](int m, int n, int i) {
      scores.values[m][n][i] =
          Probability(scores.values[m][n][i], log2_scale, constants.log2_lse[i / 2]);
    });
    const BandView<BF16>& band = attention_.bands[tile.band];
    if (VisibilityOf(band, positions, {tile.key, tile.key + kKeys}) != Visibility::kAll) {
      const int first = positions.begin + WarpRow() - tile.key;
      scores.ForEach([&](int m, int n, int i) {
        const int distance = first + scores.Row(m, i) - scores.Column(n, i);
        scores.values[m][n][i] = Sees(band, distance) ? scores.values[m][n][i] : 0.0F;
      });
    }
  }

  __device__ void Compute(const WorkWalk& at) {
    const QueryWork<Shape::kQueries> work(attention_, at);
    const Range rows = RangeUpTo(work.rows.begin + group_ * kGroupRows, kGroupRows, work.rows.end);
    const Range positions = work.positions(rows);
    const Range warp_rows{rows.begin + WarpRow(), rows.end};
    const RowConstants constants = Constants(work, warp_rows);
    KeyTiles<kKeys> tile(attention_, work.positions(work.rows));
    Sums<1, kWidth / 8> dq;
    SetZero(dq);
    barriers_.dout_full.Wait(dout_place_.parity);
    dout_place_.Advance();
    bool is_left = tile.Next();
    while (is_left) {
      barriers_.q_full.Wait(q_place_.parity);
      q_place_.Advance();
      const RotationView rotation = attention_.bands[tile.band].q_rotation;
      if (tile.band > 0) {  // the first band is never empty, and finds zeros
        TurnRows(rotation, warp_rows, 1.0F, dq);
      }
      is_left = AddBand(positions, constants, tile, dq);
      Release(barriers_.q_empty);
      TurnRows(rotation, warp_rows, -1.0F, dq);
    }
    Release(barriers_.dout_empty);
    Store(at.Again(), dq);
  }

  __device__ void Store(const WorkWalk& at, const Sums<1, kWidth / 8>& dq) {
    const QueryWork<Shape::kQueries> work(attention_, at);
    const int first_row = work.rows.begin + group_ * kGroupRows + WarpRow();
    const HeadsView<BF16>& to = arguments_.base.dq;
    StoreRows<1, kWidth>(dq, [&](int, int) { return attention_.scale; }, shared_.dq(group_),
                         Unknown(WarpRow()), to.Head(work.b, work.h), to.stride,
                         {first_row, work.rows.end});
  }

  // Adds what a band's keys give, from its first tile on. Returns whether a band is left.
  __device__ bool AddBand(Range positions, const RowConstants& constants, KeyTiles<kKeys>& tile,
                          Sums<1, kWidth / 8>& dq) {
    AddTile(
        positions, constants, tile, [] {}, dq);
    bool is_left = tile.Next();
    while (is_left && !tile.begins_band) {
      const int stage_before = place_.stage_before();
      AddTile(
          positions, constants, tile,
          [&] {
            WaitForProducts<1>(dq.values[0]);
            Release(barriers_.k_empty[stage_before]);
          },
          dq);
      is_left = tile.Next();
    }
    WaitForProducts<0>(dq.values[0]);
    Release(barriers_.k_empty[place_.stage_before()]);
    return is_left;
  }

  // Adds what a tile gives; the last product is begun on return. finish_tile_before() waits for
  // that of the tile before, when the next product has been begun.
  template <typename Function>
  __device__ void AddTile(Range positions, const RowConstants& constants,
                          const KeyTiles<kKeys>& tile, Function&& finish_tile_before,
                          Sums<1, kWidth / 8>& dq) {
    Scores scores;
    Scores dscores;
    const int stage = place_.stage;
    barriers_.k_full[stage].Wait(place_.parity);
    FenceProducts();
    BeginProductOfRows(shared_.q(group_), shared_.k(stage), scores.values[0]);
    CommitProducts();
    finish_tile_before();
    barriers_.v_full[stage].Wait(place_.parity);
    FenceProducts();
    BeginProductOfRows(shared_.dout(group_), shared_.v(stage), dscores.values[0]);
    CommitProducts();
    WaitForProducts<1>(scores.values[0]);
    ToProbabilities(tile, positions, constants, scores);
    WaitForProducts<0>(dscores.values[0]);
    Release(barriers_.v_empty[stage]);
    dscores.ForEach([&](int m, int n, int i) {
      dscores.values[m][n][i] =
          scores.values[m][n][i] * (dscores.values[m][n][i] - constants.delta[i / 2]);
    });
    RoundedSums<1, kKeys / 8> rounded(dscores);
    FenceProducts(dq.values[0], rounded.pairs[0]);
    BeginProduct<kKeys, kWidth>(rounded.pairs[0], shared_.k(stage), dq.values[0]);
    CommitProducts();
    place_.Advance();
  }

  const HopperQueryGradientArguments& arguments_;
  const AttentionView<BF16>& attention_;
  const HopperQueryGradientMemory<kWidth>& shared_;
  typename HopperQueryGradientMemory<kWidth>::Barriers& barriers_;
  int group_;
  RingPlace<1> dout_place_;
  RingPlace<1> q_place_;
  RingPlace<Shape::kStages> place_;
};

template <int kWidth>
__global__ void __launch_bounds__(HopperQueryGradientShape<kWidth>::kThreads, 1)
    HopperQueryGradientKernel(const __grid_constant__ HopperQueryGradientArguments arguments) {
  using Shape = HopperQueryGradientShape<kWidth>;
  const HopperQueryGradientMemory<kWidth> shared{AlignedShared()};
  if (threadIdx.x == 0) {
    shared.Init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    ShrinkRegisters<Shape::kLoadRegisters>();
    if (Lane() == 0) {
      LoadTiles(arguments, shared);
    }
  } else {
    GrowRegisters<Shape::kComputeRegisters>();
    QueryGradientGroup<kWidth>(arguments, shared).Run();
  }
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const BackwardArguments<BF16>& base, int64_t batch) {
  using Shape = HopperQueryGradientShape<kWidth>;
  const AttentionView<BF16>& attention = base.attention;
  HopperQueryGradientArguments arguments{
      .base = base,
      .order = MakeWorkOrder(batch * attention.heads, CeilDiv(attention.queries, Shape::kQueries),
                             Multiprocessors(stream.device())),
      .q = {},
      .k = {},
      .v = MapOf<Shape::kKeys>(attention.v, attention.kv_heads, batch),
      .dout = MapOf<kGroupRows>(base.dout, attention.heads, batch)};
  MapBands<kGroupRows, Shape::kKeys>(attention, batch, arguments.q, arguments.k);
  Launch(stream,
         {GridOf(arguments.order.blocks), dim3(Shape::kThreads),
          HopperQueryGradientMemory<kWidth>::kBytes},
         &HopperQueryGradientKernel<kWidth>, arguments);
}

}  // namespace

void LaunchHopperQueryGradient(Stream& stream, const BackwardArguments<BF16>& arguments,
                               int64_t batch) {
  if (arguments.attention.v.width == 64) {
    LaunchOfWidth<64>(stream, arguments, batch);
  } else {
    LaunchOfWidth<128>(stream, arguments, batch);
  }
}

}  // namespace panthera::cuda
