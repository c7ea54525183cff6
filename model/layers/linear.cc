#include "model/layers/linear.h"

#include <span>

namespace panthera {

Linear::Linear(ParameterStore& params, GroupId group, const std::vector<Part>& parts, Share inputs,
               double init_deviation, Op op)
    : inputs_(inputs.size()), op_(op) {
  CHECK(!parts.empty());
  for (const Part& part : parts) {
    parts_.push_back(params.Add(group, {.name = part.name,
                                        .shape = {part.rows.size(), inputs.size()},
                                        .kind = ParamKind::kMatrix,
                                        .init_mean = 0,
                                        .init_deviation = init_deviation,
                                        .slice = SliceOf(part.rows, inputs)}));
    outputs_ += part.rows.size();
  }
}

OpWork Linear::Work(int64_t rows) const {
  return {.flops = 2.0 * static_cast<double>(rows) * static_cast<double>(inputs_ * outputs_)};
}

template <typename Visit>
void Linear::ForEachBlock(const ParameterStore& params, Visit visit) const {
  if (params.FusedRows(parts_).has_value()) {
    visit(std::span(parts_), int64_t{0}, outputs_);
    return;
  }
  int64_t column = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const int64_t rows = params.spec(parts_[i]).shape[0];
    visit(std::span(parts_).subspan(i, 1), column, rows);
    column += rows;
  }
}

void Linear::Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y) const {
  const int64_t rows = x.size(0);
  const OpTimer timer(ctx, {op_}, Work(rows));
  CHECK_SHAPE(x, rows, inputs_);
  CHECK_SHAPE(y, rows, outputs_);
  ForEachBlock(params, [&](std::span<const ParamId> ids, int64_t column, int64_t columns) {
    Gemm(ctx, Transpose::kNo, x, Transpose::kYes, *params.FusedRows(ids), Accumulate::kOverwrite,
         Matrix::Part(y, column, rows, columns, outputs_));
  });
}

void Linear::BackwardWeights(Context& ctx, const ParameterStore& params, const Tensor& dy,
                             const Tensor& x, GradientSink& sink) const {
  const int64_t rows = x.size(0);
  const OpTimer timer(ctx, {op_, OpPass::kWeightGradient}, Work(rows));
  CHECK_SHAPE(x, rows, inputs_);
  CHECK_SHAPE(dy, rows, outputs_);
  ForEachBlock(params, [&](std::span<const ParamId> ids, int64_t column, int64_t columns) {
    const GradientTarget target = FusedTarget(sink, ids);
    Gemm(ctx, Transpose::kYes, Matrix::Part(dy, column, rows, columns, outputs_), Transpose::kNo, x,
         target.accumulate, target.gradient);
  });
}

void Linear::BackwardInput(Context& ctx, const ParameterStore& params, const Tensor& dy,
                           Tensor dx) const {
  const int64_t rows = dy.size(0);
  const OpTimer timer(ctx, {op_, OpPass::kBackward}, Work(rows));
  CHECK_SHAPE(dy, rows, outputs_);
  CHECK_SHAPE(dx, rows, inputs_);
  Accumulate accumulate = Accumulate::kOverwrite;
  ForEachBlock(params, [&](std::span<const ParamId> ids, int64_t column, int64_t columns) {
    Gemm(ctx, Transpose::kNo, Matrix::Part(dy, column, rows, columns, outputs_), Transpose::kNo,
         *params.FusedRows(ids), accumulate, dx);
    accumulate = Accumulate::kAdd;
  });
}

}  // namespace panthera
