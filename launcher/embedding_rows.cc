#include "launcher/embedding_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "runtime/base/check.h"
#include "runtime/math/count_above.h"
#include "runtime/math/host_mirror.h"
#include "runtime/math/row_squares.h"
#include "runtime/math/vector_ops.h"

namespace panthera {

TokenClasses::TokenClasses(std::span<const int64_t> counts) {
  class_of_.reserve(counts.size());
  for (const int64_t count : counts) {
    CHECK_GE(count, 0);
    class_of_.push_back(static_cast<uint8_t>(std::bit_width(static_cast<uint64_t>(count))));
    size_ = std::max(size_, class_of_.back() + 1);
  }
}

std::vector<RowClassMetrics> RowRmsByClass(std::span<const double> squares, int64_t width,
                                           const TokenClasses& classes) {
  CHECK_EQ(static_cast<int64_t>(squares.size()), classes.vocabulary());
  std::vector<RowClassMetrics> all(static_cast<size_t>(classes.size()));
  for (size_t token = 0; token < squares.size(); ++token) {
    RowClassMetrics& its = all[static_cast<size_t>(classes.class_of(static_cast<int64_t>(token)))];
    ++its.rows;
    its.rms += squares[token];
    its.largest_rms = std::max(its.largest_rms, squares[token]);
  }
  std::vector<RowClassMetrics> present;
  for (int c = 0; c < classes.size(); ++c) {
    RowClassMetrics its = all[static_cast<size_t>(c)];
    if (its.rows == 0) {
      continue;
    }
    its.tokens_from = TokenClasses::CountFrom(c);
    its.rms = std::sqrt(its.rms / static_cast<double>(its.rows * width));
    its.largest_rms = std::sqrt(its.largest_rms / static_cast<double>(width));
    present.push_back(its);
  }
  return present;
}

EmbeddingMeasures MeasureEmbedding(ModelInstance& instance, double outlier_bound,
                                   Communicator& host_tensor_parallel) {
  Context& ctx = instance.context();
  const ParameterStore& params = instance.params();
  const ParamId id = instance.model().embedding();
  const Tensor table = params.value(id);
  const Arena::Scope scope(ctx.arena());
  const Tensor largest = ctx.arena().Allocate({1}, DType::kF32, "largest magnitude");
  const Tensor outliers = ctx.arena().Allocate({1}, DType::kI64, "outliers");
  const Tensor squares = ctx.arena().Allocate({table.size(0)}, DType::kF64, "squares of rows");
  params.AwaitPublished(params.group_of(id), ctx.compute());
  MaxAbs(ctx, table, largest);
  CountAbove(ctx, static_cast<float>(outlier_bound), table, outliers);
  RowSquares(ctx, table, squares);
  const int64_t vocabulary = instance.model().vocabulary().whole;
  const int ranks = host_tensor_parallel.size();
  const int64_t most_rows = AlignedShareOf(vocabulary, ranks, 0).size();
  // A rank's largest component, its outliers, and the squares of its rows.
  std::vector<double> own = {ReadToHost<float>(ctx, largest)[0],
                             static_cast<double>(ReadToHost<int64_t>(ctx, outliers)[0])};
  const std::vector<double> own_squares = ReadToHost<double>(ctx, squares);
  own.insert(own.end(), own_squares.begin(), own_squares.end());
  own.resize(static_cast<size_t>(2 + most_rows));
  const auto row = static_cast<int64_t>(own.size());
  std::vector<double> all(static_cast<size_t>(ranks) * own.size());
  Stream host(ctx.device().is_meta() ? ctx.device() : Device{});
  host_tensor_parallel.AllGather(Tensor(own.data(), {row}, DType::kF64, host.device()),
                                 Tensor(all.data(), {ranks, row}, DType::kF64, host.device()),
                                 host);
  EmbeddingMeasures measures;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto its = all.begin() + rank * row;
    // Not std::max, which would lose a NaN.
    measures.largest = its[0] <= measures.largest ? measures.largest : its[0];
    measures.outliers += its[1];
    const int64_t its_rows = AlignedShareOf(vocabulary, ranks, rank).size();
    measures.squares.insert(measures.squares.end(), its + 2, its + 2 + its_rows);
  }
  return measures;
}

void AddTo(StepMetrics& metrics, const EmbeddingMeasures& measures, int64_t width,
           const TokenClasses& classes) {
  const auto elements = static_cast<double>(classes.vocabulary() * width);
  metrics.embedding_max = measures.largest;
  metrics.embedding_share = measures.outliers / elements;
  metrics.embedding_rows = RowRmsByClass(measures.squares, width, classes);
}

}  // namespace panthera
