#include "model/ops/attention_key_gradient_hopper.cuh"

#include <cstdint>

#include "model/ops/attention_hopper.cuh"
#include "model/ops/attention_kernels.cuh"
#include "model/ops/attention_warp.cuh"
#include "runtime/base/shape.h"
#include "runtime/device/launch.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

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
    BeginProductOfRows(shared_.k(group_), shared_.q(stage), p.values[0]);
    CommitProducts();
    finish_tile_before();
    barriers_.dout_full[stage].Wait(place_.parity);
    FenceProducts();
    BeginProductOfRows(shared_.v(group_), shared_.dout(stage), dscores.values[0]);
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
    LoadForKeyGradient(arguments, shared);
  } else {
    GrowRegisters<Shape::kComputeRegisters>();
    KeyGradientGroup<kWidth>(arguments, shared).Run();
  }
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const BackwardArguments<BF16>& base, int64_t batch) {
  using Shape = HopperKeyGradientShape<kWidth>;
  const AttentionView<BF16>& attention = base.attention;
  HopperKeyGradientArguments arguments{
      .base = base,
      .order = MakeWorkOrder(batch * attention.kv_heads, CeilDiv(attention.keys, Shape::kKeys),
                             Multiprocessors(stream.device())),
      .group = attention.heads / attention.kv_heads,
      .q = {},
      .k = {},
      .v = MapOf<kGroupRows>(attention.v, attention.kv_heads, batch),
      .dout = MapOf<Shape::kQueries>(base.dout, attention.heads, batch)};
  MapBands<Shape::kQueries, kGroupRows>(attention, batch, arguments.q, arguments.k);
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
