// Kernels that update weights, one warp for each sum block: every thread takes packs of elements,
// whose random bits are whole draws.
#include <cstdint>

#include "optim/optimizer.h"
#include "optim/segment_batch.cuh"
#include "optim/step_terms.cuh"
#include "optim/update_rules.h"
#include "optim/weight_access.cuh"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"

namespace panthera::cuda {
namespace {

constexpr unsigned kThreads = 128;
constexpr int64_t kWarps = kThreads / kWarpThreads;
constexpr int kPackElements = 2 * static_cast<int>(kWordsPerDraw);

// A rule has
//   bool Begin(segment, block, index, part)  once in every thread: false if the block's weights and
//                                            state keep their bits
//   bool changes_weights()                   after Begin: false if its weights do
//   void Apply<kPack>(first, theta)          updates the pack that begins at element `first` of the
//                                            shard; theta counts where weights change

template <typename State>
struct TigerRule {
  TigerTerms<State> terms;
  Shrink shrink = {};
  float rate = 0;
  float decay = 0;
  float take = 0;
  bool moves = true;
  bool folds = false;

  __device__ bool Begin(const KernelSegment& segment, const KernelBlock& block, int64_t index,
                        const BlockPart& part) {
    take = terms.Take();
    moves = part.moves();
    folds = terms.Folds(part);
    shrink = ShrinkOf(terms.shrinks, terms.shrink_ratio, segment);
    decay = segment.decay;
    if (moves) {
      rate = terms.Rate(segment, block, index);
    }
    return folds || changes_weights();
  }

  __device__ bool changes_weights() const { return moves || shrink.changes(); }

  template <int kPack>
  __device__ void Apply(int64_t first, float (&theta)[kPack]) {
    float direction[kPack];
    LoadFloats<State, kPack>(terms.momentum, first, direction);
    if (folds) {
      float g[kPack];
      LoadFloats<float, kPack>(terms.gradient, first, g);
      terms.Fold(take, g, direction);
      StoreStates<State, kPack>(direction, terms.momentum, first);
    }
    // Not within the loop below, so that what is not done is jumped over and not merely discarded.
    shrink.Apply(theta);
    if (moves) {
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        theta[i] = SignStep(rate, decay, direction[i], theta[i]);
      }
    }
  }
};

template <typename State>
struct LionRule {
  const float* gradient;
  const float* scale;
  State* momentum;
  LionFactors factors;
  LazyRows lazy_rows;
  float decay = 0;
  float gradient_scale = 1;
  bool moves = true;

  __device__ bool Begin(const KernelSegment& segment, const KernelBlock&, int64_t,
                        const BlockPart& part) {
    decay = segment.decay;
    gradient_scale = ScaleOrOne(scale);
    moves = part.moves();
    return part.folds(lazy_rows);
  }

  __device__ bool changes_weights() const { return moves; }

  template <int kPack>
  __device__ void Apply(int64_t first, float (&theta)[kPack]) {
    float g[kPack];
    float m[kPack];
    LoadFloats<float, kPack>(gradient, first, g);
    LoadFloats<State, kPack>(momentum, first, m);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      LionStep(factors, decay, gradient_scale * g[i], m[i], theta[i]);
    }
    StoreStates<State, kPack>(m, momentum, first);
  }
};

template <typename State>
struct AdamWRule {
  const float* gradient;
  const float* scale;
  State* moment1;
  float* moment2;
  AdamWFactors factors;
  const int32_t* shrinks;  // may be null
  double shrink_ratio;
  float decay = 0;
  float gradient_scale = 1;
  Shrink shrink = {};
  bool moves = true;

  __device__ bool Begin(const KernelSegment& segment, const KernelBlock&, int64_t,
                        const BlockPart& part) {
    decay = segment.decay;
    gradient_scale = ScaleOrOne(scale);
    moves = !part.is_left_out;
    shrink = ShrinkOf(shrinks, shrink_ratio, segment);
    return moves || shrink.changes();
  }

  __device__ bool changes_weights() const { return true; }

  template <int kPack>
  __device__ void Apply(int64_t first, float (&theta)[kPack]) {
    shrink.Apply(theta);
    if (!moves) {
      return;
    }
    float g[kPack];
    float m1[kPack];
    float m2[kPack];
    LoadFloats<float, kPack>(gradient, first, g);
    LoadFloats<State, kPack>(moment1, first, m1);
    LoadFloats<float, kPack>(moment2, first, m2);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      AdamWStep(factors, decay, gradient_scale * g[i], m1[i], m2[i], theta[i]);
    }
    StoreStates<State, kPack>(m1, moment1, first);
    StoreStates<float, kPack>(m2, moment2, first);
  }
};

template <int kPack, WeightStorage kStorage, typename Rule>
__device__ void UpdatePack(const WeightPointers& weights, Rule& rule, const KernelBlock& block,
                           int64_t offset, const RoundingBits& bits) {
  const int64_t first = block.shard_begin + offset;
  float theta[kPack];
  ReadWeightPack<kStorage, kPack>(weights, first, theta);
  rule.template Apply<kPack>(first, theta);
  if (rule.changes_weights()) {
    WriteWeightPack<kStorage, kPack>(weights, first, theta, LogicalElement(block, offset), bits);
  }
}

template <int kPack, WeightStorage kStorage, typename Rule>
__global__ void __launch_bounds__(kThreads, 7)
    UpdateKernel(const __grid_constant__ SegmentBatch batch, WeightPointers weights, Rule rule,
                 const uint8_t* left_out, const uint8_t* rows, uint64_t rounding_stream) {
  const int64_t lane = threadIdx.x % kWarpThreads;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpThreads;
  if (number >= batch.num_blocks) {
    return;
  }
  const int64_t index = batch.first_block + number;
  const KernelBlock block = FindBlock(batch, index);
  if (block.segment == nullptr) {
    return;
  }
  if (!rule.Begin(*block.segment, block, index, PartOf(left_out, rows, batch, block))) {
    return;
  }
  const RoundingBits bits = {block.segment->rounding_key, rounding_stream};
  const int64_t whole = block.elements / kPack * kPack;
  for (int64_t i = lane * kPack; i < whole; i += int64_t{kWarpThreads} * kPack) {
    UpdatePack<kPack, kStorage>(weights, rule, block, i, bits);
  }
  // What does not fill a pack; what follows it is padding, which is never written.
  for (int64_t i = whole + lane; i < block.elements; i += kWarpThreads) {
    UpdatePack<1, kStorage>(weights, rule, block, i, bits);
  }
}

// Runs `rule` over a group's shard.
template <typename Rule>
void Update(Stream& stream, const ParameterStore& store, GroupId group, const Rule& rule,
            const StepInput& input, RuleOf rule_of) {
  const WeightShard shard = store.shard(group);
  const uint64_t rounding_stream = static_cast<uint64_t>(input.step) + 1;
  ForEachSegmentBatch(store, group, rule_of, [&](const SegmentBatch& batch) {
    DispatchStorage(shard.storage, [&]<WeightStorage kStorage>() {
      const auto launch = [&](auto pack) {
        constexpr int kPack = decltype(pack)::value;
        Launch(stream, {GridOf(CeilDiv(batch.num_blocks, kWarps)), dim3(kThreads)},
               &UpdateKernel<kPack, kStorage, Rule>, batch, PointersTo(shard), rule,
               DataOrNull<uint8_t>(input.left_out), DataOrNull<uint8_t>(input.rows),
               rounding_stream);
      };
      if (PacksAreDraws(batch, kStorage, kPackElements)) {
        launch(std::integral_constant<int, kPackElements>());
      } else {
        launch(std::integral_constant<int, 1>());
      }
    });
  });
}

}  // namespace

void UpdateTiger(Stream& stream, const ParameterStore& store, GroupId group,
                 const TigerUpdate& update, const StepInput& input, RuleOf rule_of) {
  DispatchFloat(update.momentum.dtype(), [&]<typename State>() {
    const TigerRule<State> rule = {.terms = TigerTermsOf<State>(update, input)};
    Update(stream, store, group, rule, input, rule_of);
  });
}

void UpdateLion(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& gradient,
                const Tensor& momentum, const LionFactors& factors, const StepInput& input,
                LazyRows lazy_rows, RuleOf rule_of) {
  DispatchFloat(momentum.dtype(), [&]<typename State>() {
    const LionRule<State> rule = {gradient.data<float>(), DataOrNull<float>(input.gradient_scale),
                                  momentum.data<State>(), factors, lazy_rows};
    Update(stream, store, group, rule, input, rule_of);
  });
}

void UpdateAdamW(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& gradient,
                 const Tensor& moment1, const Tensor& moment2, const AdamWFactors& factors,
                 const StepInput& input, double shrink_ratio, RuleOf rule_of) {
  DispatchFloat(moment1.dtype(), [&]<typename State>() {
    const AdamWRule<State> rule = {gradient.data<float>(),
                                   DataOrNull<float>(input.gradient_scale),
                                   moment1.data<State>(),
                                   moment2.data<float>(),
                                   factors,
                                   DataOrNull<int32_t>(input.shrinks),
                                   shrink_ratio};
    Update(stream, store, group, rule, input, rule_of);
  });
}

}  // namespace panthera::cuda
