#include "model/layers/tensor_axis.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/comm/reduce.h"
#include "runtime/math/op_times.h"
#include "runtime/math/vector_ops.h"

namespace panthera {

Share ShareOf(int64_t whole, int64_t parts, int64_t part) {
  CHECK_GE(part, 0);
  CHECK_LT(part, parts);
  const int64_t least = whole / parts;
  const int64_t larger = whole % parts;
  const int64_t begin = part * least + std::min(part, larger);
  return {begin, begin + least + (part < larger ? 1 : 0), whole};
}

Share AlignedShareOf(int64_t whole, int64_t parts, int64_t part) {
  constexpr int64_t kLargestUnit = 64;
  constexpr int64_t kUnitsOfAPart = 8;
  int64_t unit = whole % parts == 0 ? 1 : kLargestUnit;
  while (unit > 1 && (whole % unit != 0 || whole < kUnitsOfAPart * unit * parts)) {
    unit /= 2;
  }
  const Share units = ShareOf(whole / unit, parts, part);
  return {units.begin * unit, units.end * unit, whole};
}

std::optional<MatrixSlice> SliceOf(const Share& rows, const Share& columns) {
  if (rows.size() == rows.whole && columns.size() == columns.whole) {
    return std::nullopt;
  }
  return MatrixSlice{{rows.whole, columns.whole}, rows.begin, columns.begin};
}

int64_t TensorAxis::LocalRows(int64_t rows) const { return CeilDiv(rows, int64_t{size()}); }

void TensorAxis::Allocate(Device device, MemoryLedger& ledger, int64_t bytes) {
  if (size() == 1) {
    return;
  }
  for (const auto& [buffer, name] : {std::pair(&departing_, "activations to send"),
                                     std::pair(&arriving_, "received activations"),
                                     std::pair(&ahead_, "activations received ahead")}) {
    *buffer = axes_.tensor().Allocate(device, ledger, MemoryCategory::kCommunication, name, bytes);
  }
  travel_.emplace(device);
  computed_.emplace(device);
  arrived_.emplace(device);
  arrived_ahead_.emplace(device);
}

Tensor TensorAxis::Departing(const Shape& shape, DType dtype) const {
  CHECK(!is_reducing_);
  return departing_.View(shape, dtype);
}

Tensor TensorAxis::Arriving(const Shape& shape, DType dtype) const {
  CHECK(!is_reducing_);
  return arriving_.View(shape, dtype);
}

void TensorAxis::Follow(Context& ctx) {
  computed_->Record(ctx.compute());
  travel_->WaitFor(*computed_);
}

void TensorAxis::Await(Context& ctx, Event& event) {
  event.Record(*travel_);
  ctx.compute().WaitFor(event);
}

void TensorAxis::AllGather(Context& ctx, const Tensor& shard, Tensor all) {
  const OpTimer timer(ctx, {Op::kTensorExchange}, {.bytes = Traffic({all})});
  Follow(ctx);
  axes_.tensor().AllGather(shard, all, *travel_);
  Await(ctx, *arrived_);
}

void TensorAxis::AllToAll(Context& ctx, const Tensor& sent, Tensor received) {
  const OpTimer timer(ctx, {Op::kTensorExchange}, {.bytes = Traffic({received})});
  Follow(ctx);
  axes_.tensor().AllToAll(sent, received, *travel_);
  Await(ctx, *arrived_);
}

Tensor TensorAxis::Gather(Context& ctx, const Tensor& local, int64_t rows) {
  if (size() == 1) {
    return local.Slice(0, rows);
  }
  const Shape shape = ShapeOfAll(local);
  CHECK_LE(rows, shape[0] * shape[1]);
  const Tensor all = Arriving(shape, local.dtype());
  const Tensor own = all.Slice(rank(), rank() + 1);
  Copy(ctx.compute(), local, own);
  AllGather(ctx, own, all);
  return all.Reshape({shape[0] * shape[1], shape[2]}).Slice(0, rows);
}

void TensorAxis::GatherAhead(Context& ctx, const Tensor& local) {
  if (size() == 1) {
    return;
  }
  const Tensor all = ahead_.View(ShapeOfAll(local), local.dtype());
  const Tensor own = all.Slice(rank(), rank() + 1);
  Follow(ctx);
  Copy(*travel_, local, own);
  axes_.tensor().AllGather(own, all, *travel_);
  arrived_ahead_->Record(*travel_);
}

Tensor TensorAxis::GatheredAhead(Context& ctx, const Tensor& local, int64_t rows) {
  if (size() == 1) {
    return local.Slice(0, rows);
  }
  const Shape shape = ShapeOfAll(local);
  const OpTimer timer(ctx, {Op::kTensorExchange}, {.bytes = Traffic({local})});
  ctx.compute().WaitFor(*arrived_ahead_);
  return ahead_.View({shape[0] * shape[1], shape[2]}, local.dtype()).Slice(0, rows);
}

Tensor TensorAxis::Partial(Context& ctx, const Tensor& local, int64_t rows) {
  if (size() == 1) {
    return local.Slice(0, rows);
  }
  const Shape shape = ShapeOfAll(local);
  const int64_t all_rows = shape[0] * shape[1];
  CHECK_LE(rows, all_rows);
  const Tensor all = Departing({all_rows, shape[2]}, local.dtype());
  if (rows < all_rows) {
    SetZero(ctx, all.Slice(rows, all_rows));
  }
  return all.Slice(0, rows);
}

void TensorAxis::BeginReduceScatter(Context& ctx, const Tensor& local) {
  if (size() == 1) {
    return;
  }
  const Shape shape = ShapeOfAll(local);
  const Tensor sent = Departing(shape, local.dtype());
  const Tensor received = Arriving(shape, local.dtype());
  Follow(ctx);
  axes_.tensor().AllToAll(sent, received, *travel_);
  arrived_->Record(*travel_);
  is_reducing_ = true;
}

void TensorAxis::EndReduceScatter(Context& ctx, Tensor local) {
  if (size() == 1) {
    return;
  }
  CHECK(is_reducing_);
  is_reducing_ = false;
  const Tensor received = Arriving({size(), local.elements()}, local.dtype());
  const OpTimer timer(ctx, {Op::kTensorExchange}, {.bytes = Traffic({received})});
  ctx.compute().WaitFor(*arrived_);
  SumRows(received, 1, Accumulate::kOverwrite, local.Reshape({local.elements()}), ctx.compute());
}

void TensorAxis::ReduceScatter(Context& ctx, Tensor local) {
  BeginReduceScatter(ctx, local);
  EndReduceScatter(ctx, local);
}

template <typename Body>
void TensorAxis::ForEachPart(int64_t rows, int64_t begin, int64_t end, const Body& body) const {
  const int64_t local_rows = LocalRows(rows);
  CHECK_LE(end, local_rows);
  for (int64_t r = 0; r < size(); ++r) {
    const int64_t first = r * local_rows + begin;
    const int64_t last = std::min(rows, r * local_rows + end);
    if (first < last) {
      body(first, r * (end - begin), last - first);
    }
  }
}

int64_t TensorAxis::ChunkRows(int64_t rows, int64_t begin, int64_t end) const {
  int64_t count = 0;
  ForEachPart(rows, begin, end, [&](int64_t, int64_t, int64_t part) { count += part; });
  return count;
}

void TensorAxis::TakeChunk(Context& ctx, const Tensor& all, int64_t begin, int64_t end,
                           Tensor chunk) const {
  ForEachPart(all.size(0), begin, end, [&](int64_t from, int64_t to, int64_t count) {
    Copy(ctx.compute(), all.Slice(from, from + count), chunk.Slice(to, to + count));
  });
}

void TensorAxis::PutChunk(Context& ctx, const Tensor& chunk, int64_t begin, int64_t end,
                          Tensor all) const {
  ForEachPart(all.size(0), begin, end, [&](int64_t to, int64_t from, int64_t count) {
    Copy(ctx.compute(), chunk.Slice(from, from + count), all.Slice(to, to + count));
  });
}

}  // namespace panthera
