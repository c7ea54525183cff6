#ifndef PANTHERA_OPTIM_SEEN_ROWS_H_
#define PANTHERA_OPTIM_SEEN_ROWS_H_

#include <cstdint>

#include "optim/options.h"
#include "runtime/comm/mesh_axes.h"
#include "runtime/device/buffer.h"
#include "runtime/math/context.h"
#include "runtime/params/param_spec.h"

namespace panthera {

// Words of a mask with one bit for each of V rows: bit v % 32 of word v / 32 is row v's.
inline constexpr int64_t kRowsPerWord = 32;

// Sets the bits of the tokens; the others are left alone.
//   tokens  i32, any shape, each in [0, V)        bits [ceil(V / 32)] i32
void MarkRows(Context& ctx, const Tensor& tokens, int64_t vocabulary, Tensor bits);

// rows[v] = whether bit v is set on some rank: 0 or 1.
//   gathered  [R, W] i32, W = ceil(V / 32)        rows [V] u8
void MergeRows(Context& ctx, const Tensor& gathered, Tensor rows);

// Which rows of the embedding table were read in an optimizer step: those of the tokens in all its
// micro-batches, on all data-parallel ranks. For OptimOptions::lazy_rows.
//
//   Clear();  for each micro-step: Mark(tokens);  Gather();  optimizer.Step with rows()
//
// All work is enqueued on ctx.compute(), and the host waits for nothing.
class SeenRows {
 public:
  // Of an embedding table of V logical rows, of which this rank has `table.shape[0]`. With
  // LazyRows::kOff nothing is allocated, and the calls do nothing. The references must outlive this
  // object, but for the table's.
  SeenRows(LazyRows lazy_rows, const ParamSpec& table, Context& ctx, MeshAxes axes);

  // Begins an optimizer step: no row is seen.
  void Clear();
  // The tokens of a micro-batch of this rank, i32, each in [0, V); the same on tensor-parallel
  // peers.
  void Mark(const Tensor& tokens);
  // Once after the last Mark: rows() is the union over data-parallel ranks, which is that over all.
  // May block on the peers.
  void Gather();

  // [table.shape[0]] u8, as StepInput takes it: of the rows that this rank has of the table. Valid
  // from Gather to the next one; empty with kOff.
  const Tensor& rows() const { return rows_; }

 private:
  Context& ctx_;
  MeshAxes axes_;
  Buffer gathered_memory_;
  Buffer rows_memory_;
  Tensor gathered_;  // [R, words] i32
  Tensor own_;       // this rank's words of it
  Tensor all_rows_;  // [V] u8
  Tensor rows_;      // those of this rank
};

}  // namespace panthera

#endif  // PANTHERA_OPTIM_SEEN_ROWS_H_
