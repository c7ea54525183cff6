#include "tests/optim/small_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/philox.h"
#include "runtime/math/host_mirror.h"
#include "tests/support/host_shard.h"
#include "tests/support/slices.h"

namespace panthera::testing {

void AddSmallModel(ParameterStore& store) { AddPartOfSmallModel(store, 0, 1); }

void AddPartOfSmallModel(ParameterStore& store, int part, int parts) {
  const SlicePlace rows = {Cut::kRows, part, parts};
  const SlicePlace columns = {Cut::kColumns, part, parts};
  CHECK(store.AddGroup("embedding", GroupKind::kSharded) == kTable);
  store.Add(kTable, SliceOf({"embed", {kTableRows, 37}, ParamKind::kEmbedding}, rows));
  CHECK(store.AddGroup("block 0", GroupKind::kSharded) == kBlock0);
  store.Add(kBlock0, SliceOf({"q0", {32, 32}, ParamKind::kMatrix}, rows));
  store.Add(kBlock0, SliceOf({"k0", {5, 32}, ParamKind::kMatrix}, rows));
  store.Add(kBlock0, SliceOf({"up0", {81, 32}, ParamKind::kMatrix}, columns));
  CHECK(store.AddGroup("block 1", GroupKind::kSharded) == kBlock1);
  store.Add(kBlock1, SliceOf({"up1", {90, 33}, ParamKind::kMatrix}, columns));
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
    elements.emplace_back(static_cast<size_t>(store.spec(ParamId{i}).logical_shape().elements()));
  }
  return elements;
}

namespace {

constexpr int64_t kArenaBytes = 1 << 20;

// The logical element that is a segment's element i.
int64_t LogicalElementOf(const ParameterStore& store, const ShardSegment& segment, int64_t i) {
  return LogicalElement(store.spec(segment.param), segment.param_begin + i);
}

void Prepare(ParameterStore& store, Device device, MemoryLedger& ledger, Communicator& comm,
             const OptimOptions& options, absl::FunctionRef<void(ParameterStore&)> add) {
  add(store);
  store.Allocate(device, ledger, comm, options.weights, options.low_bits());
}

}  // namespace

Worker::Worker(Device device, MemoryLedger& ledger, MeshAxes axes, const OptimOptions& options)
    : Worker(device, ledger, axes, options, [&](ParameterStore& parameters) {
        AddPartOfSmallModel(parameters, axes.tensor_rank(), axes.tensor_size());
      }) {}

Worker::Worker(Device device, MemoryLedger& ledger, MeshAxes axes, const OptimOptions& options,
               absl::FunctionRef<void(ParameterStore&)> add)
    : comm(axes.data()), ctx(device, ledger, kArenaBytes) {
  Prepare(store, device, ledger, comm, options, add);
  optimizer = CreateOptimizer(options, ctx, store, axes);
}

void Worker::SetWeights(ElementFunction value) {
  for (int g = 0; g < store.num_groups(); ++g) {
    HostShard host(store.shard(GroupId{g}));
    for (const ShardSegment& segment : store.segments(GroupId{g})) {
      for (int64_t i = 0; i < segment.elements; ++i) {
        const float element = value(segment.param, LogicalElementOf(store, segment, i));
        WriteWeightsToNearest(host.shard(), segment.shard_begin + i, 1, &element);
      }
    }
    host.Store(ctx.compute());
  }
}

std::vector<float> Worker::ShardOf(GroupId group, ElementFunction value, float padding) const {
  std::vector<float> shard(static_cast<size_t>(store.layout(group).shard_elements), padding);
  for (const ShardSegment& segment : store.segments(group)) {
    for (int64_t i = 0; i < segment.elements; ++i) {
      shard[static_cast<size_t>(segment.shard_begin + i)] =
          value(segment.param, LogicalElementOf(store, segment, i));
    }
  }
  return shard;
}

Tensor Worker::OnDevice(const std::vector<float>& values, const Shape& shape) {
  device_memory_.emplace_back(ctx.device(), ctx.ledger(), MemoryCategory::kData, "test",
                              shape.elements() * SizeOf(DType::kF32));
  const Tensor tensor = device_memory_.back().View(shape, DType::kF32);
  Write(values, tensor);
  return tensor;
}

void Worker::Write(const std::vector<float>& values, const Tensor& to) {
  written_.push_back(values);
  Copy(ctx.compute(), Tensor(written_.back().data(), to.shape(), DType::kF32, Device{}), to);
}

Tensor Worker::Contributions(GroupId group, int64_t ranks,
                             absl::FunctionRef<float(ParamId, int64_t, int64_t)> value) {
  std::vector<float> all;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const std::vector<float> row = ShardOf(
        group, [&](ParamId id, int64_t element) { return value(id, element, rank); }, NAN);
    all.insert(all.end(), row.begin(), row.end());
  }
  return OnDevice(all, {ranks, store.layout(group).shard_elements});
}

void Worker::Fold(MicroStepPlace place, double weight, int64_t ranks,
                  absl::FunctionRef<float(ParamId, int64_t, int64_t)> value,
                  const Tensor& left_out) {
  for (int g = 0; g < store.num_groups(); ++g) {
    FoldInput fold;
    fold.place = place;
    fold.weight = weight;
    fold.left_out = left_out;
    optimizer->FoldGradient(ctx, ctx.compute(), GroupId{g}, Contributions(GroupId{g}, ranks, value),
                            fold);
  }
}

void Worker::StepWithGradients(StepInput input, ElementFunction value, float scale) {
  std::vector<Tensor> shards;
  for (int g = 0; g < store.num_groups(); ++g) {
    shards.push_back(
        OnDevice(ShardOf(GroupId{g}, value, NAN), {store.layout(GroupId{g}).shard_elements}));
  }
  input.gradients = shards;
  if (scale != 1) {
    input.gradient_scale = OnDevice({scale}, {1});
  }
  optimizer->Step(ctx, input);
}

void Worker::CopyElements(const ShardSegment& segment, const float* from, Elements& out) const {
  std::vector<float>& to = out[static_cast<size_t>(segment.param.index)];
  for (int64_t i = 0; i < segment.elements; ++i) {
    to[static_cast<size_t>(LogicalElementOf(store, segment, i))] = from[i];
  }
}

void Worker::CopyWeights(Elements& out) {
  for (int g = 0; g < store.num_groups(); ++g) {
    HostShard host(store.shard(GroupId{g}));
    host.Fetch(ctx.compute());
    for (const ShardSegment& segment : store.segments(GroupId{g})) {
      std::vector<float> values(static_cast<size_t>(segment.elements));
      ReadWeights(host.shard(), segment.shard_begin, segment.elements, values.data());
      CopyElements(segment, values.data(), out);
    }
  }
}

std::string Worker::ReplicaBytes() {
  std::string bytes;
  const auto append = [&](const Tensor& tensor) {
    const Tensor raw(tensor.bytes_data(), {tensor.bytes()}, DType::kU8, tensor.device());
    const std::vector<uint8_t> read = ReadToHost<uint8_t>(ctx, raw);
    bytes.append(read.begin(), read.end());
  };
  for (int g = 0; g < store.num_groups(); ++g) {
    if (store.layout(GroupId{g}).kind == GroupKind::kSharded) {
      store.AwaitPublished(GroupId{g}, ctx.compute());
    }
    const WeightShard whole = store.group_weights(GroupId{g});
    append(whole.values);
    if (whole.remainder.has_value()) {
      append(*whole.remainder);
    }
  }
  return bytes;
}

void Worker::CopyState(const char* name, Elements& out) {
  // Folds may be under way beside the computation.
  ctx.exchange().Synchronize();
  optimizer->ForEachState([&](const char* state, GroupId group, Tensor shard) {
    if (std::strcmp(state, name) != 0) {
      return;
    }
    std::vector<float> values(static_cast<size_t>(shard.elements()));
    if (shard.dtype() == DType::kBF16) {
      const std::vector<BF16> stored = ReadToHost<BF16>(ctx, shard);
      std::transform(stored.begin(), stored.end(), values.begin(),
                     [](BF16 value) { return static_cast<float>(value); });
    } else {
      values = ReadToHost<float>(ctx, shard);
    }
    for (const ShardSegment& segment : store.segments(group)) {
      CopyElements(segment, values.data() + segment.shard_begin, out);
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
