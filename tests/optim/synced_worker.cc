#include "tests/optim/synced_worker.h"

#include <gtest/gtest.h>

namespace panthera::testing {

SyncedWorker::SyncedWorker(Device device, MemoryLedger& ledger, Communicator& communicator,
                           const OptimOptions& options)
    : Worker(device, ledger, communicator, options),
      sync(options, ctx, store, communicator, *optimizer) {}

void SyncedWorker::Contribute(ParamId id, ElementFunction value) {
  const GradientTarget target = sync.Target(id);
  EXPECT_EQ(target.gradient.shape(), store.spec(id).shape);
  for (int64_t i = 0; i < target.gradient.elements() && !ctx.device().is_meta(); ++i) {
    float& element = target.gradient.data<float>()[i];
    element = value(id, i) + (target.accumulate == Accumulate::kAdd ? element : 0.0F);
  }
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

void SyncedWorker::CopyGradients(Elements& out) {
  for (int g = 0; g < store.num_groups(); ++g) {
    const float* shard = sync.gradient_shard(GroupId{g}).data<float>();
    for (const ShardSegment& segment : store.segments(GroupId{g})) {
      for (int64_t i = 0; i < segment.elements; ++i) {
        out[static_cast<size_t>(segment.param.index)]
           [static_cast<size_t>(segment.param_begin + i)] = shard[segment.shard_begin + i];
      }
    }
  }
}

}  // namespace panthera::testing
