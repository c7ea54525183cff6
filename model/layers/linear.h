#ifndef PANTHERA_MODEL_LAYERS_LINEAR_H_
#define PANTHERA_MODEL_LAYERS_LINEAR_H_

#include <string>
#include <vector>

#include "model/layers/tensor_axis.h"
#include "runtime/math/context.h"
#include "runtime/math/gemm.h"
#include "runtime/math/op_times.h"
#include "runtime/params/gradient_sink.h"
#include "runtime/params/parameter_store.h"

namespace panthera {

// y = x W^T without bias, W being one logical matrix or several stacked on top of each other
// (query, key and value projections; gate and up projections). Stacked matrices keep their own
// names and sums; where they lie next to each other in memory they are multiplied as one.
//
// Under tensor parallelism a rank has some rows of every matrix, and gets those columns of y
// (column-parallel, after W^T), or some columns, and gives one rank's term of y (row-parallel).
class Linear {
 public:
  struct Part {
    std::string name;
    Share rows;
  };

  // Registers this rank's shares of the parts, each [rows, inputs], in `group`. Their products
  // count as `op`.
  Linear(ParameterStore& params, GroupId group, const std::vector<Part>& parts, Share inputs,
         double init_deviation, Op op);

  // Of this rank, as are the shapes below.
  int64_t inputs() const { return inputs_; }
  int64_t outputs() const { return outputs_; }

  // y = x W^T.  x [N, inputs], y [N, outputs], both of the weights' type; y overwritten.
  void Forward(Context& ctx, const ParameterStore& params, const Tensor& x, Tensor y) const;

  // Gradient of W: dW (+)= dy^T x, as the sink says.  dy [N, outputs].
  void BackwardWeights(Context& ctx, const ParameterStore& params, const Tensor& dy,
                       const Tensor& x, GradientSink& sink) const;
  // dx = dy W, overwritten.  dx [N, inputs].
  void BackwardInput(Context& ctx, const ParameterStore& params, const Tensor& dy, Tensor dx) const;

 private:
  // Of one product over `rows` rows.
  OpWork Work(int64_t rows) const;
  // Calls product(weights, first output column) for each block of weights that is contiguous.
  template <typename Visit>
  void ForEachBlock(const ParameterStore& params, Visit visit) const;

  std::vector<ParamId> parts_;
  int64_t inputs_;
  int64_t outputs_ = 0;
  Op op_;
};

}  // namespace panthera

#endif  // PANTHERA_MODEL_LAYERS_LINEAR_H_
