#include "model/ops/embedding.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "model/ops/cuda_kernels.h"
#include "runtime/base/shape.h"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"
#include "runtime/device/pack.cuh"
#include "runtime/device/shared_memory.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kMostSumThreads = 128;

// The rows of tokens [first, first + count) are here.
struct OwnRows {
  int64_t first;
  int64_t count;

  __device__ bool Have(int64_t token) const { return token >= first && token - first < count; }
};

template <typename T, int kPack>
__global__ void EmbeddingForwardKernel(const int32_t* tokens, OwnRows own, const T* table,
                                       int64_t packs, int64_t width, T* out) {
  using Elements = Pack<T, kPack>;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= packs) {
    return;
  }
  const int64_t element = index * kPack;
  const int64_t token = tokens[element / width];
  Elements elements = {};
  if (own.Have(token)) {
    elements = Elements::Load(table + (token - own.first) * width + element % width);
  }
  elements.Store(out + element);
}

// Positions are sorted by token, then by position: as keys token * 2^32 + position, which are all
// different, so that there is one order. The keys are padded to a power of two with the largest.
constexpr int64_t kPaddingKey = std::numeric_limits<int64_t>::max();
constexpr int64_t kBlockKeys = kEmbeddingSortBlock;
constexpr unsigned kSortThreads = kBlockKeys / 2;  // a thread has one pair

__global__ void MakeKeysKernel(const int32_t* tokens, int64_t positions, int64_t* keys) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  keys[i] = i < positions ? (static_cast<int64_t>(tokens[i]) << 32) + i : kPaddingKey;
}

// The comparators of Batcher's bitonic network (Batcher 1968, "Sorting networks and their
// applications") are numbered by `pair`; runs of `run` keys become sorted, neighbouring runs in
// opposite directions, by comparing keys `distance` apart.
__device__ void CompareAndSwap(int64_t* keys, int64_t first, int64_t distance, bool ascending) {
  const int64_t a = keys[first];
  const int64_t b = keys[first + distance];
  if ((a > b) == ascending) {
    keys[first] = b;
    keys[first + distance] = a;
  }
}
// pair / distance * 2 * distance + pair % distance, of a power of two and without slow divisions.
__device__ int64_t FirstOfPair(int64_t pair, int64_t distance) {
  return 2 * pair - (pair & (distance - 1));
}

// All comparators of runs from `from_run` to `to_run` whose distance fits into a block.
__global__ void SortInBlockKernel(int64_t* keys, int64_t from_run, int64_t to_run) {
  PANTHERA_SHARED_ARRAY(int64_t, block_keys, kBlockKeys);
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kBlockKeys;
  const int64_t thread = threadIdx.x;
  block_keys[thread] = keys[begin + thread];
  block_keys[thread + kSortThreads] = keys[begin + thread + kSortThreads];
  for (int64_t run = from_run; run <= to_run; run *= 2) {
    int64_t distance = run / 2 < kSortThreads ? run / 2 : kSortThreads;
    for (; distance > 0; distance /= 2) {
      __syncthreads();
      const int64_t first = FirstOfPair(thread, distance);
      CompareAndSwap(block_keys, first, distance, ((begin + first) & run) == 0);
    }
  }
  __syncthreads();
  keys[begin + thread] = block_keys[thread];
  keys[begin + thread + kSortThreads] = block_keys[thread + kSortThreads];
}

// The comparators of one distance, across blocks.
__global__ void CompareKernel(int64_t* keys, int64_t run, int64_t distance) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kSortThreads + threadIdx.x;
  const int64_t first = FirstOfPair(pair, distance);
  CompareAndSwap(keys, first, distance, (first & run) == 0);
}

void SortKeys(Stream& stream, const Tensor& keys) {
  int64_t* data = keys.data<int64_t>();
  const int64_t count = keys.elements();
  const LaunchShape shape{GridOf(count / kBlockKeys), dim3(kSortThreads)};
  Launch(stream, shape, &SortInBlockKernel, data, 2, kBlockKeys);
  for (int64_t run = 2 * kBlockKeys; run <= count; run *= 2) {
    for (int64_t distance = run / 2; distance > kSortThreads; distance /= 2) {
      Launch(stream, shape, &CompareKernel, data, run, distance);
    }
    Launch(stream, shape, &SortInBlockKernel, data, run, run);
  }
}

__device__ int64_t TokenOf(int64_t key) { return key >> 32; }
__device__ int64_t PositionOf(int64_t key) { return key & 0xffffffff; }

// Which sums a run of sorted positions leaves to AddRunsKernel: of a token that began in an earlier
// run, and of one that began in this run and goes on in the next.
enum PartialSum : int { kFromBefore = 0, kGoesOn = 1 };

// Where the sum goes after a position: nowhere yet, to a partial sum, or to the token's row. What
// has its row elsewhere is in no sum.
enum Destination : int { kToBefore = kFromBefore, kToNext = kGoesOn, kToRow, kGrows, kElsewhere };

// Of position i of a run [begin, end) of sorted keys.
__device__ Destination DestinationAfter(const int64_t* keys, int64_t positions, const OwnRows& own,
                                        int64_t begin, int64_t end, int64_t i) {
  const int64_t token = TokenOf(keys[i]);
  if (!own.Have(token)) {
    return kElsewhere;
  }
  const bool goes_on = i + 1 < positions && TokenOf(keys[i + 1]) == token;
  if (goes_on && i + 1 < end) {
    return kGrows;
  }
  if (begin > 0 && TokenOf(keys[begin - 1]) == token) {
    return kToBefore;
  }
  return goes_on ? kToNext : kToRow;
}

// One block per run of kEmbeddingRun sorted positions and part of the columns, of which a thread
// has a pack. A token that lies wholly in the run is added to its row, the others to the run's
// partial sums.
template <typename T, int kPack>
__global__ void __launch_bounds__(kMostSumThreads)
    SumRunsKernel(const int64_t* keys, int64_t positions, OwnRows own, const T* dout, int64_t width,
                  float* partials, float* dtable) {
  constexpr int kAhead = 4;
  PANTHERA_SHARED_ARRAY(int64_t, run_keys, kEmbeddingRun);
  PANTHERA_SHARED_ARRAY(Destination, destinations, kEmbeddingRun);
  using Elements = Pack<T, kPack>;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kEmbeddingRun;
  const int64_t end = begin + kEmbeddingRun < positions ? begin + kEmbeddingRun : positions;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    run_keys[i - begin] = keys[i];
    destinations[i - begin] = DestinationAfter(keys, positions, own, begin, end, i);
  }
  __syncthreads();
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kPack;
  if (c >= width) {
    return;
  }
  float* const run_partials = partials + static_cast<int64_t>(blockIdx.x) * 2 * width + c;
  const auto count = static_cast<int>(end - begin);
  float sum[kPack] = {};
  for (int first = 0; first < count; first += kAhead) {
    typename Elements::Memory gradients[kAhead] = {};
    float rows[kAhead][kPack] = {};
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u < count && destinations[first + u] != kElsewhere) {
        const int64_t key = run_keys[first + u];
        gradients[u] = Elements::Fetch(dout + PositionOf(key) * width + c);
        if (destinations[first + u] == kToRow) {
          LoadFp32<kPack>(dtable + (TokenOf(key) - own.first) * width + c, rows[u]);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u >= count) {
        break;
      }
      const Destination destination = destinations[first + u];
      if (destination == kElsewhere) {
        continue;
      }
      const Elements gradient = Elements::Of(gradients[u]);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        sum[i] += gradient.values[i];
      }
      if (destination == kGrows) {
        continue;
      }
      if (destination == kToRow) {
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
          sum[i] = rows[u][i] + sum[i];
        }
        StoreFp32<kPack>(sum, dtable + (TokenOf(run_keys[first + u]) - own.first) * width + c);
      } else {
        StoreFp32<kPack>(sum, run_partials + destination * width);
      }
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        sum[i] = 0;
      }
    }
  }
}

// One block per run: if a token begins in it and goes on, its sums over all runs, by ascending run,
// are added to its row, if that is here.
__global__ void AddRunsKernel(const int64_t* keys, int64_t positions, OwnRows own, int64_t width,
                              const float* partials, float* dtable) {
  const int64_t run = blockIdx.x;
  const int64_t begin = run * kEmbeddingRun;
  const int64_t end = begin + kEmbeddingRun;
  if (end >= positions) {
    return;
  }
  const int64_t token = TokenOf(keys[end - 1]);
  const bool began_before = begin > 0 && TokenOf(keys[begin - 1]) == token;
  if (began_before || TokenOf(keys[end]) != token || !own.Have(token)) {
    return;
  }
  for (int64_t c = threadIdx.x; c < width; c += kThreads) {
    float sum = partials[(run * 2 + kGoesOn) * width + c];
    for (int64_t next = run + 1; next * kEmbeddingRun < positions; ++next) {
      if (TokenOf(keys[next * kEmbeddingRun]) != token) {
        break;
      }
      sum += partials[(next * 2 + kFromBefore) * width + c];
    }
    dtable[(token - own.first) * width + c] += sum;
  }
}

}  // namespace

void EmbeddingForward(Stream& stream, const Tensor& tokens, const Tensor& table,
                      int64_t first_token, Tensor out) {
  const OwnRows own{first_token, table.size(0)};
  const int64_t width = out.size(1);
  DispatchPack(out.dtype(), IsPackable(width, table, out), [&]<typename T, int kPack>() {
    const int64_t packs = out.elements() / kPack;
    Launch(stream, {GridOf(CeilDiv(packs, int64_t{kThreads})), dim3(kThreads)},
           &EmbeddingForwardKernel<T, kPack>, tokens.data<int32_t>(), own, table.data<T>(), packs,
           width, out.data<T>());
  });
}

void EmbeddingBackward(Stream& stream, const Tensor& tokens, const Tensor& dout, const Tensor& keys,
                       const Tensor& partials, int64_t first_token, const GradientTarget& dtable) {
  const OwnRows own{first_token, dtable.gradient.size(0)};
  const int64_t positions = tokens.elements();
  const int64_t width = dout.size(1);
  if (dtable.accumulate == Accumulate::kOverwrite) {
    SetZeroAsync(stream.handle(), dtable.gradient.bytes_data(), dtable.gradient.bytes());
  }
  Launch(stream, {GridOf(keys.elements() / kThreads), dim3(kThreads)}, &MakeKeysKernel,
         tokens.data<int32_t>(), positions, keys.data<int64_t>());
  SortKeys(stream, keys);
  const LaunchShape shape{GridOf(CeilDiv(positions, kEmbeddingRun)), dim3(kThreads)};
  const bool is_packable = IsPackable(width, dout, partials, dtable.gradient);
  DispatchPack(dout.dtype(), is_packable, [&]<typename T, int kPack>() {
    const int64_t packs = width / kPack;
    const int64_t threads =
        std::min(RoundUp(packs, int64_t{kWarpThreads}), int64_t{kMostSumThreads});
    const dim3 grid(shape.grid.x, static_cast<unsigned>(CeilDiv(packs, threads)));
    Launch(stream, {grid, dim3(static_cast<unsigned>(threads))}, &SumRunsKernel<T, kPack>,
           keys.data<int64_t>(), positions, own, dout.data<T>(), width, partials.data<float>(),
           dtable.gradient.data<float>());
  });
  Launch(stream, shape, &AddRunsKernel, keys.data<int64_t>(), positions, own, width,
         partials.data<float>(), dtable.gradient.data<float>());
}

}  // namespace panthera::cuda
