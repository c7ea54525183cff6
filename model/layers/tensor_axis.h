#ifndef PANTHERA_MODEL_LAYERS_TENSOR_AXIS_H_
#define PANTHERA_MODEL_LAYERS_TENSOR_AXIS_H_

#include <cstdint>
#include <optional>

#include "runtime/comm/mesh_axes.h"
#include "runtime/device/buffer.h"
#include "runtime/device/stream.h"
#include "runtime/math/context.h"
#include "runtime/params/param_spec.h"

namespace panthera {

// One rank's part of a dimension that is cut over the tensor-parallel ranks: [begin, end) of
// `whole`.
struct Share {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t whole = 0;

  int64_t size() const { return end - begin; }
  static Share All(int64_t whole) { return {0, whole, whole}; }
};

// Part `part` of `whole` things in `parts` parts that are as equal as can be; the first ones have
// one more.
Share ShareOf(int64_t whole, int64_t parts, int64_t part);
// The same for features and tokens, which kernels take in packs. Equal parts where there can be;
// otherwise they begin at multiples of a power of two, up to 64, that divides `whole`, as long as
// that makes no part larger by more than an eighth. Part 0 is as large as any.
Share AlignedShareOf(int64_t whole, int64_t parts, int64_t part);

// The slice of a matrix that these shares of its rows and columns are; nothing: all of it.
std::optional<MatrixSlice> SliceOf(const Share& rows, const Share& columns);

// The ranks that share each layer, and the memory through which their activations travel.
//
// The residual stream and the norms are cut by rows: of N rows, m = ceil(N / t) lie on each of t
// ranks, those of rank r from row r m on. Where t does not divide N, the last ranks have rows
// behind the N-th: padding, which holds finite numbers and reaches no result. Matrices are cut so
// that a branch begins with an all-gather of its rows and ends with a sum of all ranks' products,
// of which each rank gets its own rows (Megatron-LM, Shoeybi et al., arXiv 1909.08053; sequence
// parallelism, Korthikanti et al., arXiv 2205.05198). Sums are taken in fp32 in rank order and
// rounded once.
//
// With one rank nothing is allocated, copied or sent: the calls give back what they are given.
// Otherwise all ranks must make the same calls, which may block on the peers as Communicator says.
// On a GPU everything travels on a stream of its own. What a call returns is there for the work
// that ctx.compute() gets afterwards; between GatherAhead and GatheredAhead, and between
// BeginReduceScatter and EndReduceScatter, ctx.compute() goes on while it travels. That hides four
// of the ten exchanges of a block behind products that do not need them.
class TensorAxis {
 public:
  explicit TensorAxis(const MeshAxes& axes) : axes_(axes) {}
  TensorAxis(const TensorAxis&) = delete;
  TensorAxis& operator=(const TensorAxis&) = delete;

  int size() const { return axes_.tensor_size(); }
  int rank() const { return axes_.tensor_rank(); }
  // This rank's share of features or tokens.
  Share AlignedShareOf(int64_t whole) const {
    return panthera::AlignedShareOf(whole, size(), rank());
  }
  // Rows of the residual stream that lie on each rank, of `rows` in all.
  int64_t LocalRows(int64_t rows) const;

  // Memory for what travels: three pieces of as many bytes as one call takes at most. Once, before
  // the first call below.
  void Allocate(Device device, MemoryLedger& ledger, int64_t bytes);

  // The first `rows` rows of all ranks' `local` [m, C], one rank's behind the other's: [rows, C],
  // in memory that the next call overwrites, but for GatherAhead.
  Tensor Gather(Context& ctx, const Tensor& local, int64_t rows);
  // Begins to gather what GatheredAhead, called with the same tensor, returns: memory that the next
  // GatherAhead overwrites. `local` must keep its values until then.
  void GatherAhead(Context& ctx, const Tensor& local);
  Tensor GatheredAhead(Context& ctx, const Tensor& local, int64_t rows);
  // Where this rank's product is to be written of which `local` [m, C] will be this rank's rows of
  // the sum: [rows, C], rows <= t m, in memory that the next ReduceScatter or Departing overwrites.
  // What is behind it is zeroed.
  Tensor Partial(Context& ctx, const Tensor& local, int64_t rows);
  // local = the sum over ranks of what they wrote to Partial, this rank's rows. In between, no
  // other call may be made but GatheredAhead, and what Gather has returned is overwritten.
  void BeginReduceScatter(Context& ctx, const Tensor& local);
  void EndReduceScatter(Context& ctx, Tensor local);
  void ReduceScatter(Context& ctx, Tensor local);

  // For what else travels; only with more than one rank. Memory of tensors that this rank sends,
  // and of those that it receives; either is one piece, which Partial and Gather use too.
  Tensor Departing(const Shape& shape, DType dtype) const;
  Tensor Arriving(const Shape& shape, DType dtype) const;
  // As Communicator says.
  void AllGather(Context& ctx, const Tensor& shard, Tensor all);
  void AllToAll(Context& ctx, const Tensor& sent, Tensor received);

  // For rows that are taken in chunks, each the rows [begin, end) of every rank's. How many of the
  // t (end - begin) rows of a chunk are among `rows`: they come before all padding.
  int64_t ChunkRows(int64_t rows, int64_t begin, int64_t end) const;
  // chunk = the rows of `all` [rows, ...] that belong to a chunk. chunk [ChunkRows, ...]
  void TakeChunk(Context& ctx, const Tensor& all, int64_t begin, int64_t end, Tensor chunk) const;
  // The inverse: those rows of `all` are overwritten.
  void PutChunk(Context& ctx, const Tensor& chunk, int64_t begin, int64_t end, Tensor all) const;

 private:
  // Calls body(first row in all, first row in the chunk, count) for each rank's rows of a chunk.
  template <typename Body>
  void ForEachPart(int64_t rows, int64_t begin, int64_t end, const Body& body) const;

  // [t, m, C] for local [m, C].
  Shape ShapeOfAll(const Tensor& local) const {
    return {size(), local.size(0), local.elements() / local.size(0)};
  }
  // What travels from now on comes after the work that ctx.compute() has so far.
  void Follow(Context& ctx);
  // What ctx.compute() gets from now on comes after what travels now.
  void Await(Context& ctx, Event& event);

  MeshAxes axes_;
  Buffer departing_;
  Buffer arriving_;
  Buffer ahead_;
  std::optional<Stream> travel_;
  std::optional<Event> computed_;
  std::optional<Event> arrived_;        // in arriving_
  std::optional<Event> arrived_ahead_;  // in ahead_
  bool is_reducing_ = false;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_TENSOR_AXIS_H_
