// The loops of this folder on a GPU, with the bits of those on a CPU; these only enqueue kernels on
// `stream`. A group's arguments are parts of this rank's shard, in the memory of the GPU. In a
// build without CUDA they abort.
#ifndef PANTHERA_OPTIM_CUDA_KERNELS_H_
#define PANTHERA_OPTIM_CUDA_KERNELS_H_

#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"

#include "runtime/device/stream.h"
#include "runtime/device/tensor.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

struct AdamWFactors;
struct DirectionMessage;
struct DirectionReplay;
struct FoldInput;
struct LionFactors;
struct StepInput;
struct StepVerdict;
struct VerdictInput;
enum class LazyRows : uint8_t;

// Where the sums of one parameter's blocks lie (BlockSums): block b of its group, first_block <= b
// < first_block + num_blocks, at sums[b / shard_blocks * row + b % shard_blocks].
struct BlockRun {
  const double* sums;
  int64_t first_block;
  int64_t num_blocks;
  int64_t shard_blocks;
  int64_t row;
  int32_t param;
};

namespace cuda {

// What the update of a parameter needs to know beside its place.
struct ParamRule {
  uint64_t rounding_key = 0;  // RoundingBits::key
  float decay = 0;
};
using RuleOf = absl::FunctionRef<ParamRule(ParamId)>;

// optimizer_fold.cu

// Optimizer::FoldInto of one group.
//   state  [shard_elements] fp32 or bf16
void FoldGradient(Stream& stream, const ParameterStore& store, GroupId group,
                  const Tensor& contributions, const Tensor& state, double beta,
                  const FoldInput& input);
// squares[b] = the sum of squares of block b.
//   values [shard_elements] fp32;  squares [blocks of the shard] f64
void SumSquares(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& values,
                Tensor squares);
// The same of the stored weights after shrinking by ratio^shrinks[param] (StepInput::shrinks).
void SumWeightSquares(Stream& stream, const ParameterStore& store, GroupId group,
                      const Tensor& shrinks, double ratio, Tensor squares);
// found[i] = 1 where the sum over ranks of the contributions to tensor i of the group, in the
// group's order, is not finite somewhere in this shard; else it is left alone.
//   found [tensors of the group] i32
void MarkNonFinite(Stream& stream, const ParameterStore& store, GroupId group,
                   const Tensor& contributions, Tensor found);

// optimizer_update.cu

struct TigerUpdate {
  Tensor momentum;
  Tensor gradient;  // [shard_elements] fp32, folded into the momentum in the same pass; or empty
  double beta = 0;
  // [params] f64: of tensors that are scaled as a whole, the sum of squares of the shrunk weights
  Tensor param_sums;
  // [blocks of the shard] f64: the same of an embedding's rows where they have rates of their own;
  // else empty
  Tensor row_squares;
  double shrink_ratio = 1;
  LazyRows lazy_rows{};  // what a row does that StepInput::rows leaves out
};
// Tiger::Step of one group.
void UpdateTiger(Stream& stream, const ParameterStore& store, GroupId group,
                 const TigerUpdate& update, const StepInput& input, RuleOf rule);
// Lion::Step and AdamW::Step of one group: they update their states.
//   gradient [shard_elements] fp32;  lazy_rows, shrink_ratio: as of TigerUpdate
void UpdateLion(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& gradient,
                const Tensor& momentum, const LionFactors& factors, const StepInput& input,
                LazyRows lazy_rows, RuleOf rule);
void UpdateAdamW(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& gradient,
                 const Tensor& moment1, const Tensor& moment2, const AdamWFactors& factors,
                 const StepInput& input, double shrink_ratio, RuleOf rule);

// direction.cu

// Tiger's and Lion's steps of one group as a message (direction_exchange.h) instead of new weights;
// state is updated as by UpdateTiger and UpdateLion. Rates are written for each block where
// `update` has row_squares.
void DecideTiger(Stream& stream, const ParameterStore& store, GroupId group,
                 const TigerUpdate& update, const StepInput& input,
                 const DirectionMessage& message);
void DecideLion(Stream& stream, const ParameterStore& store, GroupId group, const Tensor& gradient,
                const Tensor& momentum, const LionFactors& factors, const StepInput& input,
                LazyRows lazy_rows, const DirectionMessage& message);
// ReplayDirections of direction_exchange.h.
void ApplyDirections(Stream& stream, const ParameterStore& store, GroupId group,
                     const DirectionReplay& replay, RuleOf rule);

// seen_rows.cu

// MarkRows and MergeRows of seen_rows.h.
void MarkRows(Stream& stream, const Tensor& tokens, Tensor bits);
void MergeRows(Stream& stream, const Tensor& gathered, Tensor rows);

// step_verdict.cu

// param_sums[run.param] = the sum of the run's blocks, added in double by index.
//   param_sums [params] f64; those without a run are left alone
void SumBlockRuns(Stream& stream, std::span<const BlockRun> runs, Tensor param_sums);
// For each tensor i of a group, whose parameter is params[i]: flags[param] = whether gathered[r, i]
// is not 0 for some rank r, and counts[param] += that.
//   gathered [R, tensors] i32;  flags [params] u8;  counts [params] i32
void MergeFlags(Stream& stream, std::span<const ParamId> params, const Tensor& gathered,
                Tensor flags, Tensor counts);
// JudgeStep of step_verdict.h.
void JudgeStep(Stream& stream, const VerdictInput& input, Tensor flags, Tensor verdict);

}  // namespace cuda
}  // namespace panthera

#endif  // PANTHERA_OPTIM_CUDA_KERNELS_H_
