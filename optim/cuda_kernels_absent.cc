// The kernels of this folder in a build without CUDA. Nobody has a stream to call them with.
#include <cstdlib>

#include "optim/cuda_kernels.h"
#include "runtime/base/check.h"

namespace panthera::cuda {
namespace {

[[noreturn]] void Absent() {
  CHECK(false) << "this build has no CUDA";
  std::abort();
}

}  // namespace

void FoldGradient(Stream&, const ParameterStore&, GroupId, const Tensor&, const Tensor&, double,
                  const FoldInput&) {
  Absent();
}
void SumSquares(Stream&, const ParameterStore&, GroupId, const Tensor&, Tensor) { Absent(); }
void SumWeightSquares(Stream&, const ParameterStore&, GroupId, const Tensor&, double, Tensor) {
  Absent();
}
void MarkNonFinite(Stream&, const ParameterStore&, GroupId, const Tensor&, Tensor) { Absent(); }
void UpdateTiger(Stream&, const ParameterStore&, GroupId, const TigerUpdate&, const StepInput&,
                 RuleOf) {
  Absent();
}
void UpdateLion(Stream&, const ParameterStore&, GroupId, const Tensor&, const Tensor&,
                const LionFactors&, const StepInput&, LazyRows, RuleOf) {
  Absent();
}
void UpdateAdamW(Stream&, const ParameterStore&, GroupId, const Tensor&, const Tensor&,
                 const Tensor&, const AdamWFactors&, const StepInput&, double, RuleOf) {
  Absent();
}
void DecideTiger(Stream&, const ParameterStore&, GroupId, const TigerUpdate&, const StepInput&,
                 const DirectionMessage&) {
  Absent();
}
void DecideLion(Stream&, const ParameterStore&, GroupId, const Tensor&, const Tensor&,
                const LionFactors&, const StepInput&, LazyRows, const DirectionMessage&) {
  Absent();
}
void ApplyDirections(Stream&, const ParameterStore&, GroupId, const DirectionReplay&, RuleOf) {
  Absent();
}
void MarkRows(Stream&, const Tensor&, Tensor) { Absent(); }
void MergeRows(Stream&, const Tensor&, Tensor) { Absent(); }
void SumBlockRuns(Stream&, std::span<const BlockRun>, Tensor) { Absent(); }
void MergeFlags(Stream&, std::span<const ParamId>, const Tensor&, Tensor, Tensor) { Absent(); }
void JudgeStep(Stream&, const VerdictInput&, Tensor, Tensor) { Absent(); }

}  // namespace panthera::cuda
