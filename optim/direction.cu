// Kernels that decide steps, which travel between ranks, and apply them. One thread block for each
// sum block; a thread takes the four elements of a byte of codes at a time.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "optim/direction_codes.h"
#include "optim/direction_exchange.h"
#include "optim/optimizer.h"
#include "optim/segment_batch.cuh"
#include "optim/step_terms.cuh"
#include "optim/update_rules.h"
#include "optim/weight_access.cuh"
#include "runtime/device/block_sum.cuh"
#include "runtime/device/launch.cuh"

namespace panthera::cuda {
namespace {

constexpr int kFour = static_cast<int>(kCodesPerByte);
static_assert(kCodesPerByte == kWordsPerDraw);

// Whether the first of the four elements of every byte lies at a multiple of four.
enum class Packs { kAligned, kUnaligned };

// out = elements [first, first + count), count up to 4, and 0 beyond.
template <Packs kPacks, typename T>
__device__ void LoadFour(const T* memory, int64_t first, int64_t count, float (&out)[kFour]) {
  if (kPacks == Packs::kAligned && count == kFour) {
    LoadFloats<T, kFour>(memory, first, out);
    return;
  }
#pragma unroll
  for (int i = 0; i < kFour; ++i) {
    out[i] = i < count ? static_cast<float>(memory[first + i]) : 0.0F;
  }
}

// Stores them as state.
template <Packs kPacks, typename T>
__device__ void StoreFour(const float (&in)[kFour], int64_t first, int64_t count, T* memory) {
  if (kPacks == Packs::kAligned && count == kFour) {
    StoreStates<T, kFour>(in, memory, first);
    return;
  }
#pragma unroll
  for (int i = 0; i < kFour; ++i) {
    if (i < count) {
      memory[first + i] = static_cast<T>(FlushTiny(in[i]));
    }
  }
}

// A DirectionMessage in the memory of the GPU.
struct MessagePointers {
  float* factors;
  float* rates;
  uint8_t* codes;
  int64_t code_bytes;
  RateUnit rate_unit;
};

// A decision has
//   void Begin()                         once in every thread, before Decide
//   bool Folds(part)                     whether state changes
//   float Factor(segment), Rate(segment, block, index)  for the message
//   void Decide<kPacks>(first, count, folds, direction) of up to four elements of the shard

template <typename State>
struct TigerDecision {
  TigerTerms<State> terms;
  float take = 0;

  __device__ void Begin() { take = terms.Take(); }
  __device__ bool Folds(const BlockPart& part) const { return terms.Folds(part); }
  __device__ float Factor(const KernelSegment& segment) const {
    return ShrinkOf(terms.shrinks, terms.shrink_ratio, segment).factor;
  }
  __device__ float Rate(const KernelSegment& segment, const KernelBlock& block,
                        int64_t index) const {
    return terms.Rate(segment, block, index);
  }
  template <Packs kPacks>
  __device__ void Decide(int64_t first, int64_t count, bool folds,
                         float (&direction)[kFour]) const {
    LoadFour<kPacks>(terms.momentum, first, count, direction);
    if (folds) {
      float g[kFour];
      LoadFour<kPacks>(terms.gradient, first, count, g);
      terms.Fold(take, g, direction);
      StoreFour<kPacks>(direction, first, count, terms.momentum);
    }
  }
};

template <typename State>
struct LionDecision {
  State* momentum;
  const float* gradient;
  const float* scale;  // may be null
  LionFactors factors;
  LazyRows lazy_rows;
  float gradient_scale = 1;

  __device__ void Begin() { gradient_scale = ScaleOrOne(scale); }
  __device__ bool Folds(const BlockPart& part) const { return part.folds(lazy_rows); }
  __device__ float Factor(const KernelSegment&) const { return 1.0F; }
  __device__ float Rate(const KernelSegment&, const KernelBlock&, int64_t) const {
    return factors.rate;
  }
  // What moves folds.
  template <Packs kPacks>
  __device__ void Decide(int64_t first, int64_t count, bool, float (&direction)[kFour]) const {
    float g[kFour];
    float m[kFour];
    LoadFour<kPacks>(gradient, first, count, g);
    LoadFour<kPacks>(momentum, first, count, m);
#pragma unroll
    for (int i = 0; i < kFour; ++i) {
      direction[i] = LionDirection(factors, gradient_scale * g[i], m[i]);
    }
    StoreFour<kPacks>(m, first, count, momentum);
  }
};

__device__ uint8_t PackFour(const float (&direction)[kFour], int64_t count) {
  uint32_t four = 0;
#pragma unroll
  for (int i = 0; i < kFour; ++i) {
    const uint32_t code = i < count ? DirectionCode(direction[i]) : kCodeRests;
    four |= code << static_cast<uint32_t>(2 * i);
  }
  return static_cast<uint8_t>(four);
}

template <Packs kPacks, typename Decision>
__global__ void DecideKernel(const __grid_constant__ SegmentBatch batch, MessagePointers message,
                             Decision decision, const uint8_t* left_out, const uint8_t* rows) {
  const int64_t index = batch.first_block + blockIdx.x;
  const KernelBlock block = FindBlock(batch, index);
  if (block.segment == nullptr) {
    return;
  }
  const KernelSegment& segment = *block.segment;
  if (threadIdx.x == 0) {
    const bool begins = block.shard_begin == segment.shard_begin;
    if (begins) {
      message.factors[segment.place] = decision.Factor(segment);
    }
    if (message.rate_unit == RateUnit::kBlock) {
      message.rates[index] = decision.Rate(segment, block, index);
    } else if (begins) {
      message.rates[segment.place] = decision.Rate(segment, block, index);
    }
  }
  const BlockPart part = PartOf(left_out, rows, batch, block);
  const bool moves = part.moves();
  const bool folds = decision.Folds(part);
  decision.Begin();
  uint8_t* codes = message.codes + index * message.code_bytes;
  for (int64_t i = threadIdx.x; i * kFour < block.elements; i += blockDim.x) {
    const int64_t count = block.elements - i * kFour < kFour ? block.elements - i * kFour : kFour;
    float direction[kFour] = {};
    if (moves || folds) {
      decision.template Decide<kPacks>(block.shard_begin + i * kFour, count, folds, direction);
    }
    codes[i] = moves ? PackFour(direction, count) : kFourRest;
  }
}

// A DirectionReplay in the memory of the GPU, but for the segments.
struct ReplayPointers {
  const uint8_t* messages;
  WeightPointers weights;
  int64_t message_bytes;
  int64_t rates_begin;
  int64_t codes_begin;
  int64_t code_bytes;
  int64_t shard_blocks;
  int64_t skipped;
  uint64_t rounding_stream;
  RateUnit rate_unit;
};

// What happens to the elements of a block.
struct BlockStep {
  const uint8_t* codes;
  float rate;
  float decay;
  Shrink shrink;
};

template <int kPack, WeightStorage kStorage>
__device__ void StepPack(const WeightPointers& weights, const BlockStep& step,
                         const KernelBlock& block, int64_t offset, const RoundingBits& bits) {
  const uint32_t four = step.codes[offset / kCodesPerByte];
  if (four == kFourRest && !step.shrink.changes()) {
    return;
  }
  const int64_t first = block.shard_begin + offset;
  float theta[kPack];
  ReadWeightPack<kStorage, kPack>(weights, first, theta);
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    const uint32_t code = CodeAt(four, kPack == 1 ? offset % kCodesPerByte : i);
    theta[i] = StepByCode(step.rate, step.decay, code, step.shrink.Of(theta[i]));
  }
  WriteWeightPack<kStorage, kPack>(weights, first, theta, LogicalElement(block, offset), bits);
}

template <int kPack, WeightStorage kStorage>
__global__ void ApplyDirectionsKernel(const __grid_constant__ SegmentBatch batch,
                                      ReplayPointers replay) {
  const int64_t index = batch.first_block + blockIdx.x;
  const int64_t shard = index / replay.shard_blocks;
  const KernelBlock block = FindBlock(batch, index);
  if (block.segment == nullptr || shard == replay.skipped) {
    return;
  }
  const KernelSegment& segment = *block.segment;
  const int64_t shard_index = index % replay.shard_blocks;
  const uint8_t* message = replay.messages + shard * replay.message_bytes;
  const auto* factors = reinterpret_cast<const float*>(message);
  const auto* rates = reinterpret_cast<const float*>(message + replay.rates_begin);
  const BlockStep step = {message + replay.codes_begin + shard_index * replay.code_bytes,
                          rates[replay.rate_unit == RateUnit::kBlock ? shard_index : segment.place],
                          segment.decay, ShrinkBy(factors[segment.place], segment)};
  const RoundingBits bits = {segment.rounding_key, replay.rounding_stream};
  const int64_t whole = block.elements / kPack * kPack;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * kPack; i < whole;
       i += static_cast<int64_t>(blockDim.x) * kPack) {
    StepPack<kPack, kStorage>(replay.weights, step, block, i, bits);
  }
  // What does not fill a pack; what follows it is padding, which is never written.
  for (int64_t i = whole + threadIdx.x; i < block.elements; i += blockDim.x) {
    StepPack<1, kStorage>(replay.weights, step, block, i, bits);
  }
}

LaunchShape ShapeFor(const SegmentBatch& batch) {
  const int64_t fours = CeilDiv(batch.block_elements, kCodesPerByte);
  const auto threads =
      static_cast<unsigned>(std::clamp<int64_t>(RoundUp(fours, kWarpThreads), kWarpThreads, 256));
  return {GridOf(batch.num_blocks), dim3(threads)};
}

template <typename Decision>
void Decide(Stream& stream, const ParameterStore& store, GroupId group, const Decision& decision,
            const StepInput& input, const DirectionMessage& message) {
  const MessagePointers pointers = {message.factors.data<float>(), message.rates.data<float>(),
                                    message.codes.data<uint8_t>(), message.layout.code_bytes,
                                    message.layout.rate_unit};
  ForEachSegmentBatch(store, group, NoRule, [&](const SegmentBatch& batch) {
    const bool aligned = batch.block_elements % kCodesPerByte == 0;
    Launch(stream, ShapeFor(batch),
           aligned ? &DecideKernel<Packs::kAligned, Decision>
                   : &DecideKernel<Packs::kUnaligned, Decision>,
           batch, pointers, decision, DataOrNull<uint8_t>(input.left_out),
           DataOrNull<uint8_t>(input.rows));
  });
}

}  // namespace

void DecideTiger(Stream& stream, const ParameterStore& store, GroupId group,
                 const TigerUpdate& update, const StepInput& input,
                 const DirectionMessage& message) {
  DispatchFloat(update.momentum.dtype(), [&]<typename State>() {
    const TigerDecision<State> decision = {TigerTermsOf<State>(update, input)};
    Decide(stream, store, group, decision, input, message);
  });
}

void DecideLion(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& gradient,
                const Tensor& momentum, const LionFactors& factors, const StepInput& input,
                LazyRows lazy_rows, const DirectionMessage& message) {
  DispatchFloat(momentum.dtype(), [&]<typename State>() {
    const LionDecision<State> decision = {momentum.data<State>(), gradient.data<float>(),
                                          DataOrNull<float>(input.gradient_scale), factors,
                                          lazy_rows};
    Decide(stream, store, group, decision, input, message);
  });
}

void ApplyDirections(Stream& stream, const ParameterStore& store, GroupId group,
                     const DirectionReplay& replay, RuleOf rule) {
  const ReplayPointers pointers = {replay.messages.data<uint8_t>(),
                                   PointersTo(replay.weights),
                                   replay.layout.bytes,
                                   replay.layout.rates_begin,
                                   replay.layout.codes_begin,
                                   replay.layout.code_bytes,
                                   replay.layout.num_blocks,
                                   replay.skipped,
                                   replay.rounding_stream,
                                   replay.layout.rate_unit};
  ForEachSegmentBatch(store, group, replay.segments, rule, [&](const SegmentBatch& batch) {
    DispatchStorage(replay.weights.storage, [&]<WeightStorage kStorage>() {
      const bool aligned = PacksAreDraws(batch, kStorage, kCodesPerByte);
      Launch(
          stream, ShapeFor(batch),
          aligned ? &ApplyDirectionsKernel<kFour, kStorage> : &ApplyDirectionsKernel<1, kStorage>,
          batch, pointers);
    });
  });
}

}  // namespace panthera::cuda
