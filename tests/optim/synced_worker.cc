#include "tests/optim/synced_worker.h"

#include <vector>

#include <gtest/gtest.h>

#include "runtime/math/host_mirror.h"
#include "tests/support/slices.h"

namespace panthera::testing {

SyncedWorker::SyncedWorker(Device device, MemoryLedger& ledger, MeshAxes axes,
                           const OptimOptions& options)
    : Worker(device, ledger, axes, options),
      sync(options, ctx, store, axes, *optimizer),
      loss_(device, ledger, MemoryCategory::kData, "loss", SizeOf(DType::kF64)) {}

void SyncedWorker::Contribute(ParamId id, ElementFunction value) {
  const GradientTarget target = sync.Target(id);
  EXPECT_EQ(target.gradient.shape(), store.spec(id).shape);
  if (ctx.device().is_meta()) {
    return;
  }
  const bool adds = target.accumulate == Accumulate::kAdd;
  std::vector<float> values(static_cast<size_t>(target.gradient.elements()));
  if (adds) {
    values = ReadToHost<float>(ctx, target.gradient);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = value(id, LogicalElement(store.spec(id), static_cast<int64_t>(i))) +
                (adds ? values[i] : 0.0F);
  }
  Write(values, target.gradient);
}

void SyncedWorker::Contribute(GroupId group, ElementFunction value) {
  for (const ParamId id : store.layout(group).params) {
    Contribute(id, value);
  }
}

void SyncedWorker::Backward(int64_t micro, int64_t micro_steps, ElementFunction value) {
  sync.BeginMicroStep(micro, micro_steps);
  Contribute(kTable, [&](ParamId id, int64_t i) { return value(id, i) - 2; });
  for (const GroupId group : {kBlock1, kBlock0}) {
    Contribute(group, value);
    sync.GroupComplete(group);
  }
  Contribute(kTable, [](ParamId, int64_t) { return 2.0F; });
  sync.GroupComplete(kTable);
  Contribute(kVectors, value);
  sync.GroupComplete(kVectors);
  sync.FinishMicroStep();
}

void SyncedWorker::Judge(double loss) {
  const Tensor share = loss_.View({1}, DType::kF64);
  double own = loss / comm.size();
  Copy(ctx.compute(), Tensor(&own, {1}, DType::kF64, Device{}), share);
  ctx.compute().Synchronize();
  sync.Judge(share, /*targets=*/1);
}

double SyncedWorker::GradientNorm() {
  Judge(1);
  return sync.Report().value().gradient_norm;
}

void SyncedWorker::CopyGradients(Elements& out) {
  for (int g = 0; g < store.num_groups(); ++g) {
    const std::vector<float> shard = ReadToHost<float>(ctx, sync.gradient_shard(GroupId{g}));
    for (const ShardSegment& segment : store.segments(GroupId{g})) {
      CopyElements(segment, shard.data() + segment.shard_begin, out);
    }
  }
}

}  // namespace panthera::testing
