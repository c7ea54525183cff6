// A worker whose gradients go the way of a model's: through GradSync.
#ifndef PANTHERA_TESTS_OPTIM_SYNCED_WORKER_H_
#define PANTHERA_TESTS_OPTIM_SYNCED_WORKER_H_

#include <cstdint>

#include "optim/grad_sync.h"
#include "tests/optim/small_model.h"

namespace panthera::testing {

struct SyncedWorker : Worker {
  SyncedWorker(Device device, MemoryLedger& ledger, MeshAxes axes, const OptimOptions& options);

  void Contribute(ParamId id, ElementFunction value);
  void Contribute(GroupId group, ElementFunction value);
  // What a model with a tied table does: the head's part of the table's gradient comes first, the
  // lookup's last.
  void Backward(int64_t micro, int64_t micro_steps, ElementFunction value);
  // Judges the step with this loss, of every rank together.
  void Judge(double loss);
  // Judges the step with a loss of 1 and tells the gradient norm.
  double GradientNorm();
  // This rank's part of the mean gradient.
  void CopyGradients(Elements& out);

  GradSync sync;

 private:
  Buffer loss_;
};

}  // namespace panthera::testing

#endif  // PANTHERA_TESTS_OPTIM_SYNCED_WORKER_H_
