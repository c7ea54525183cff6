#include "tests/optim/small_model.h"

#include <cmath>
#include <cstring>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"

namespace panthera::testing {

void AddSmallModel(ParameterStore& store) {
  CHECK(store.AddGroup("embedding", GroupKind::kSharded) == kTable);
  store.Add(kTable, {"embed", {13, 37}, ParamKind::kEmbedding});
  CHECK(store.AddGroup("block 0", GroupKind::kSharded) == kBlock0);
  store.Add(kBlock0, {"q0", {32, 32}, ParamKind::kMatrix});
  store.Add(kBlock0, {"k0", {5, 32}, ParamKind::kMatrix});
  store.Add(kBlock0, {"up0", {81, 32}, ParamKind::kMatrix});
  CHECK(store.AddGroup("block 1", GroupKind::kSharded) == kBlock1);
  store.Add(kBlock1, {"up1", {90, 33}, ParamKind::kMatrix});
  CHECK(store.AddGroup("vectors", GroupKind::kReplicated) == kVectors);
  store.Add(kVectors, {"gain", {37}, ParamKind::kGain});
  store.Add(kVectors, {"bias", {1100}, ParamKind::kBias});
}

float Noise(uint64_t seed, ParamId id, int64_t element) {
  const Philox draw =
      Philox4x32(seed, static_cast<uint64_t>(element), static_cast<uint64_t>(id.index));
  return 2 * UnitFloat(draw.value[0]) - 1;
}

float SmallInteger(uint64_t seed, ParamId id, int64_t element) {
  return std::floor(8.5F * (Noise(seed, id, element) + 1)) - 8;
}

Elements EmptyElements(const ParameterStore& store) {
  Elements elements;
  for (int i = 0; i < store.num_params(); ++i) {
    elements.emplace_back(static_cast<size_t>(store.spec(ParamId{i}).shape.elements()));
  }
  return elements;
}

namespace {

constexpr int64_t kArenaBytes = 1 << 20;

void Prepare(ParameterStore& store, Device device, MemoryLedger& ledger, Communicator& comm,
             WeightStorage storage, absl::FunctionRef<void(ParameterStore&)> add) {
  add(store);
  store.Allocate(device, ledger, comm, storage);
}

}  // namespace

Worker::Worker(Device device, MemoryLedger& ledger, Communicator& communicator,
               const OptimOptions& options, absl::FunctionRef<void(ParameterStore&)> add)
    : comm(communicator), ctx(device, ledger, kArenaBytes) {
  Prepare(store, device, ledger, comm, options.weights, add);
  optimizer = CreateOptimizer(options, ctx, store, comm);
}

void Worker::SetWeights(ElementFunction value) {
  for (int g = 0; g < store.num_groups(); ++g) {
    for (const ShardSegment& segment : store.segments(GroupId{g})) {
      for (int64_t i = 0; i < segment.elements; ++i) {
        const float element = value(segment.param, segment.param_begin + i);
        WriteWeightsToNearest(store.shard(GroupId{g}), segment.shard_begin + i, 1, &element);
      }
    }
  }
}

Tensor Worker::ShardOf(GroupId group, ElementFunction value, float padding,
                       std::vector<float>& memory) {
  const int64_t size = store.layout(group).shard_elements;
  memory.assign(static_cast<size_t>(size), padding);
  for (const ShardSegment& segment : store.segments(group)) {
    for (int64_t i = 0; i < segment.elements; ++i) {
      memory[static_cast<size_t>(segment.shard_begin + i)] =
          value(segment.param, segment.param_begin + i);
    }
  }
  return {memory.data(), {size}, DType::kF32, Device{}};
}

void Worker::Fold(MicroStepPlace place, double weight, int64_t ranks,
                  absl::FunctionRef<float(ParamId, int64_t, int64_t)> value,
                  const Tensor& left_out) {
  for (int g = 0; g < store.num_groups(); ++g) {
    std::vector<float> all;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      std::vector<float> row;
      ShardOf(
          GroupId{g}, [&](ParamId id, int64_t element) { return value(id, element, rank); }, NAN,
          row);
      all.insert(all.end(), row.begin(), row.end());
    }
    FoldInput fold;
    fold.place = place;
    fold.weight = weight;
    fold.left_out = left_out;
    optimizer->FoldGradient(
        ctx, GroupId{g},
        Tensor(all.data(), {ranks, store.layout(GroupId{g}).shard_elements}, DType::kF32, Device{}),
        fold);
  }
}

void Worker::StepWithGradients(StepInput input, ElementFunction value) {
  std::vector<std::vector<float>> memory(static_cast<size_t>(store.num_groups()));
  std::vector<Tensor> shards;
  for (int g = 0; g < store.num_groups(); ++g) {
    shards.push_back(ShardOf(GroupId{g}, value, NAN, memory[static_cast<size_t>(g)]));
  }
  input.gradients = shards;
  optimizer->Step(ctx, input);
}

void Worker::CopyWeights(Elements& out) {
  for (int g = 0; g < store.num_groups(); ++g) {
    const WeightShard shard = store.shard(GroupId{g});
    for (const ShardSegment& segment : store.segments(GroupId{g})) {
      ReadWeights(shard, segment.shard_begin, segment.elements,
                  out[static_cast<size_t>(segment.param.index)].data() + segment.param_begin);
    }
  }
}

void Worker::CopyState(const char* name, Elements& out) {
  optimizer->ForEachState([&](const char* state, GroupId group, Tensor shard) {
    if (std::strcmp(state, name) != 0) {
      return;
    }
    for (const ShardSegment& segment : store.segments(group)) {
      for (int64_t i = 0; i < segment.elements; ++i) {
        const int64_t from = segment.shard_begin + i;
        out[static_cast<size_t>(segment.param.index)]
           [static_cast<size_t>(segment.param_begin + i)] =
               shard.dtype() == DType::kBF16 ? static_cast<float>(shard.data<BF16>()[from])
                                             : shard.data<float>()[from];
      }
    }
  });
}

OptimOptions OptionsFor(Algorithm algorithm) {
  OptimOptions options;
  options.algorithm = algorithm;
  options.accumulate =
      algorithm == Algorithm::kTiger ? Accumulation::kMomentum : Accumulation::kGradient;
  CHECK_OK(options.Finish());
  return options;
}

}  // namespace panthera::testing
