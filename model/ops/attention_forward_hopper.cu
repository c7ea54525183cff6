#include <cmath>
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
struct HopperForwardShape {
  static constexpr int kGroups = 2;
  static constexpr int kThreads = (1 + kGroups) * kWarpgroupThreads;
  static constexpr int kQueries = kGroups * kGroupRows;
  static constexpr int kKeys = 128;
  static constexpr int kStages = kWidth == 64 ? 4 : 2;
  static constexpr int kLoadRegisters = 24;
  static constexpr int kComputeRegisters = 240;
};

struct HopperForwardArguments {
  ForwardArguments<BF16> base;
  WorkOrder order;
  TensorMap q[kMostAttentionBands];
  TensorMap k[kMostAttentionBands];
  TensorMap v;
};

template <int kWidth>
struct HopperForwardMemory {
  using Shape = HopperForwardShape<kWidth>;
  using QueryTile = PanelTile<kGroupRows, kWidth>;
  using KeyTile = PanelTile<Shape::kKeys, kWidth>;

  struct Barriers {
    PhaseBarrier q_full;
    PhaseBarrier q_empty;
    PhaseBarrier k_full[Shape::kStages];
    PhaseBarrier k_empty[Shape::kStages];
    PhaseBarrier v_full[Shape::kStages];
    PhaseBarrier v_empty[Shape::kStages];
  };
  static constexpr int kQueryBytes = Shape::kGroups * QueryTile::kBytes;
  static constexpr int kKeyBytes = Shape::kStages * KeyTile::kBytes;
  static constexpr int kTileBytes = 2 * kQueryBytes + 2 * kKeyBytes;
  static constexpr size_t kBytes = kTileBytes + sizeof(Barriers) + kSharedAlignment;

  __device__ QueryTile q(int group) const { return {memory + group * QueryTile::kBytes}; }
  // Where a warpgroup's results stand before they are stored.
  __device__ SharedTile<kWidth> out(int group) const {
    return {memory + kQueryBytes + group * QueryTile::kBytes};
  }
  __device__ KeyTile k(int stage) const {
    return {memory + 2 * kQueryBytes + stage * KeyTile::kBytes};
  }
  __device__ KeyTile v(int stage) const {
    return {memory + 2 * kQueryBytes + kKeyBytes + stage * KeyTile::kBytes};
  }
  __device__ Barriers& barriers() const {
    return *reinterpret_cast<Barriers*>(memory + kTileBytes);
  }
  __device__ void Init() const {
    constexpr unsigned kWarps = Shape::kGroups * kGroupWarps;
    barriers().q_full.Init(1);
    barriers().q_empty.Init(kWarps);
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
__device__ void LoadTiles(const HopperForwardArguments& arguments,
                          const HopperForwardMemory<kWidth>& shared) {
  using Shape = HopperForwardShape<kWidth>;
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
  }
}

// What a thread knows of its two rows: row Lane() / 4 of its warp's, and the row 8 below it.
struct RunningSoftmax {
  // Takes in the scores of further keys: they become exp(scale * (score - largest)). Sums relative
  // to the largest so far become relative to the new one when multiplied by `shrink`. log2_scale =
  // scale * log2(e).
  template <int kTiles>
  __device__ void TakeIn(float log2_scale, float (&scores)[kTiles][4], float (&shrink)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Two runs at once: one would wait for itself.
      float even = largest[half];
      float odd = scores[0][half * 2 + 1];
      even = fmaxf(even, scores[0][half * 2]);
#pragma unroll
      for (int n = 1; n < kTiles; ++n) {
        even = fmaxf(even, scores[n][half * 2]);
        odd = fmaxf(odd, scores[n][half * 2 + 1]);
      }
      const float next = QuadMax(fmaxf(even, odd));
      // A row that has seen no key yet keeps exponentials of 0, not of -inf + inf.
      const float base = next == -INFINITY ? 0.0F : next * log2_scale;
      shrink[half] = FastExp2(__fmaf_rn(largest[half], log2_scale, -base));
      float even_sum = total[half] * shrink[half];
      float odd_sum = 0;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        float& first = scores[n][half * 2];
        float& second = scores[n][half * 2 + 1];
        first = FastExp2(__fmaf_rn(first, log2_scale, -base));
        second = FastExp2(__fmaf_rn(second, log2_scale, -base));
        even_sum += first;
        odd_sum += second;
      }
      largest[half] = next;
      total[half] = even_sum + odd_sum;
    }
  }

  // The same for the four threads that share a row.
  static __device__ float QuadMax(float value) {
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, 1));
    return fmaxf(value, __shfl_xor_sync(kWholeWarp, value, 2));
  }

  // Sums the totals over all columns, and stores lse of the rows before `end`; the warp's first row
  // is first_row.
  __device__ void Finish(float scale, int first_row, int end, float* lse) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += __shfl_xor_sync(kWholeWarp, total[half], 1);
      total[half] += __shfl_xor_sync(kWholeWarp, total[half], 2);
      const int row = first_row + Sums<1, 1>::Row(0, half * 2);
      if (row < end && Lane() % 4 == 0) {
        lse[row] = __fmaf_rn(largest[half], scale, logf(total[half]));
      }
    }
  }

  float largest[2] = {-INFINITY, -INFINITY};  // score so far
  float total[2] = {0, 0};                    // of exponentials, this thread's columns
};

// A computing warpgroup. While the products of a tile's probabilities and values run, so do the
// scores of the next one.
template <int kWidth>
class ForwardGroup {
 public:
  using Shape = HopperForwardShape<kWidth>;
  static constexpr int kKeys = Shape::kKeys;
  using Scores = Sums<1, kKeys / 8>;

  __device__ ForwardGroup(const HopperForwardArguments& arguments,
                          const HopperForwardMemory<kWidth>& shared)
      : arguments_(arguments),
        attention_(arguments.base.attention),
        shared_(shared),
        barriers_(shared.barriers()),
        group_(ComputeGroup()) {}

  __device__ void Run() {
    if (group_ == Shape::kGroups - 1) {
      ArriveThreads(kFirstTurn, 2 * kWarpgroupThreads);
    }
    for (WorkWalk at(arguments_.order); !at.IsDone(); at.Next()) {
      Compute(at);
    }
  }

 private:
  static constexpr int kFirstTurn = 1;

  __device__ void AwaitTurn() { SyncThreads(kFirstTurn + group_, 2 * kWarpgroupThreads); }
  __device__ void PassTurn() {
    ArriveThreads(kFirstTurn + (group_ + 1) % Shape::kGroups, 2 * kWarpgroupThreads);
  }

  __device__ void BeginScores(Scores& scores) {
    BeginProductOfRows(shared_.q(group_), shared_.k(place_.stage), scores.values[0]);
    CommitProducts();
  }
  __device__ void AwaitKeys(const KeyTiles<kKeys>& tile) {
    if (tile.begins_band) {
      barriers_.q_full.Wait(q_place_.parity);
      q_place_.Advance();
    }
    barriers_.k_full[place_.stage].Wait(place_.parity);
  }
  __device__ void ReleaseKeys(const KeyTiles<kKeys>& tile) {
    Release(barriers_.k_empty[place_.stage]);
    if (tile.ends_band()) {
      Release(barriers_.q_empty);
    }
  }

  __device__ void AwaitValues(RingPlace<Shape::kStages> place) {
    barriers_.v_full[place.stage].Wait(place.parity);
  }

  // Scores of keys that a row does not see become -inf.
  __device__ void Mask(const KeyTiles<kKeys>& tile, Range positions, Scores& scores) {
    const BandView<BF16>& band = attention_.bands[tile.band];
    if (VisibilityOf(band, positions, {tile.key, tile.key + kKeys}) != Visibility::kAll) {
      const int first = positions.begin + WarpRow() - tile.key;
      scores.ForEach([&](int m, int n, int i) {
        const int distance = first + scores.Row(m, i) - scores.Column(n, i);
        scores.values[m][n][i] = Sees(band, distance) ? scores.values[m][n][i] : -INFINITY;
      });
    }
  }

  __device__ void Compute(const WorkWalk& at) {
    const QueryWork<Shape::kQueries> work(attention_, at);
    const Range rows = RangeUpTo(work.rows.begin + group_ * kGroupRows, kGroupRows, work.rows.end);
    const Range positions = work.positions(rows);
    const float log2_scale = attention_.scale * kLog2E;
    KeyTiles<kKeys> tile(attention_, work.positions(work.rows));
    RunningSoftmax softmax;
    Sums<1, kWidth / 8> out;
    Scores scores;
    float shrink[2];
    SetZero(out);

    tile.Next();  // every query sees a key
    AwaitKeys(tile);
    AwaitTurn();
    FenceProducts();
    BeginScores(scores);
    PassTurn();
    WaitForProducts<0>(scores.values[0]);
    ReleaseKeys(tile);
    Mask(tile, positions, scores);
    softmax.TakeIn(log2_scale, scores.values[0], shrink);
    RoundedSums<1, kKeys / 8> probabilities(scores);
    RingPlace<Shape::kStages> values = place_;
    place_.Advance();
    while (tile.Next()) {
      AwaitKeys(tile);
      AwaitValues(values);
      AwaitTurn();
      FenceProducts(out.values[0], probabilities.pairs[0]);
      BeginScores(scores);
      BeginProduct<kKeys, kWidth>(probabilities.pairs[0], shared_.v(values.stage), out.values[0]);
      CommitProducts();
      PassTurn();
      WaitForProducts<1>(scores.values[0]);
      ReleaseKeys(tile);
      Mask(tile, positions, scores);
      softmax.TakeIn(log2_scale, scores.values[0], shrink);
      WaitForProducts<0>(out.values[0]);
      Release(barriers_.v_empty[values.stage]);
      out.ForEach([&](int m, int n, int i) { out.values[m][n][i] *= shrink[i / 2]; });
      probabilities = RoundedSums<1, kKeys / 8>(scores);
      values = place_;
      place_.Advance();
    }
    AwaitValues(values);
    FenceProducts(out.values[0], probabilities.pairs[0]);
    BeginProduct<kKeys, kWidth>(probabilities.pairs[0], shared_.v(values.stage), out.values[0]);
    CommitProducts();
    WaitForProducts<0>(out.values[0]);
    Release(barriers_.v_empty[values.stage]);
    Store(at.Again(), softmax, out);
  }

  __device__ void Store(const WorkWalk& at, RunningSoftmax& softmax,
                        const Sums<1, kWidth / 8>& out) {
    const QueryWork<Shape::kQueries> work(attention_, at);
    const int first_row = work.rows.begin + group_ * kGroupRows + WarpRow();
    const Range warp_rows{first_row, work.rows.end};
    const ForwardArguments<BF16>& base = arguments_.base;
    softmax.Finish(attention_.scale, warp_rows.begin, warp_rows.end, base.lse + work.constants);
    const float factors[2] = {__fdiv_rn(1.0F, softmax.total[0]), __fdiv_rn(1.0F, softmax.total[1])};
    StoreRows<1, kWidth>(
        out, [&](int, int i) { return factors[i / 2]; }, shared_.out(group_), Unknown(WarpRow()),
        base.out.Head(work.b, work.h), base.out.stride, warp_rows);
  }

  const HopperForwardArguments& arguments_;
  const AttentionView<BF16>& attention_;
  const HopperForwardMemory<kWidth>& shared_;
  typename HopperForwardMemory<kWidth>::Barriers& barriers_;
  int group_;
  RingPlace<1> q_place_;
  RingPlace<Shape::kStages> place_;
};

template <int kWidth>
__global__ void __launch_bounds__(HopperForwardShape<kWidth>::kThreads, 1)
    HopperForwardKernel(const __grid_constant__ HopperForwardArguments arguments) {
  using Shape = HopperForwardShape<kWidth>;
  const HopperForwardMemory<kWidth> shared{AlignedShared()};
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
    ForwardGroup<kWidth>(arguments, shared).Run();
  }
}

template <int kWidth>
void LaunchOfWidth(Stream& stream, const ForwardArguments<BF16>& base, int64_t batch) {
  using Shape = HopperForwardShape<kWidth>;
  const AttentionView<BF16>& attention = base.attention;
  HopperForwardArguments arguments{
      .base = base,
      .order = MakeWorkOrder(batch * attention.heads, CeilDiv(attention.queries, Shape::kQueries),
                             Multiprocessors(stream.device())),
      .q = {},
      .k = {},
      .v = MapOf<Shape::kKeys>(attention.v, attention.kv_heads, batch)};
  MapBands<kGroupRows, Shape::kKeys>(attention, batch, arguments.q, arguments.k);
  Launch(
      stream,
      {GridOf(arguments.order.blocks), dim3(Shape::kThreads), HopperForwardMemory<kWidth>::kBytes},
      &HopperForwardKernel<kWidth>, arguments);
}

}  // namespace

void LaunchHopperForward(Stream& stream, const ForwardArguments<BF16>& arguments, int64_t batch) {
  if (arguments.attention.v.width == 64) {
    LaunchOfWidth<64>(stream, arguments, batch);
  } else {
    LaunchOfWidth<128>(stream, arguments, batch);
  }
}

}  // namespace panthera::cuda
