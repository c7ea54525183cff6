// Matrix products through the one interface that the model uses.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/math/gemm.h"
#include "tests/bench/kernel_case.h"

namespace panthera::bench {
namespace {

enum class Pass : uint8_t { kForward, kInputGradient, kWeightGradient };
constexpr std::array kPasses = {Pass::kForward, Pass::kInputGradient, Pass::kWeightGradient};

const char* Name(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return "gemm_forward";
    case Pass::kInputGradient:
      return "gemm_input_gradient";
    case Pass::kWeightGradient:
      return "gemm_weight_gradient";
  }
  return "";
}

// y = x W^T with W [outputs, inputs], dx = dy W, dW = dy^T x; dW is fp32 and overwritten.
struct Layer {
  std::string shape;
  int64_t rows;
  int64_t outputs;
  int64_t inputs;
};

KernelCall MakeCall(const Layer& layer, Pass pass, Context& ctx, Operands& operands) {
  constexpr DType kType = DType::kBF16;
  const auto call = [&ctx](Transpose transpose_a, const Tensor& a, Transpose transpose_b,
                           const Tensor& b, const Tensor& c) -> KernelCall {
    return {[&ctx, transpose_a, a, transpose_b, b, c] {
              Gemm(ctx, transpose_a, a, transpose_b, b, Accumulate::kOverwrite, c);
            },
            {{c}}};
  };
  switch (pass) {
    case Pass::kForward:
      return call(Transpose::kNo, operands.Noise({layer.rows, layer.inputs}, kType),
                  Transpose::kYes, operands.Noise({layer.outputs, layer.inputs}, kType),
                  operands.Poisoned({layer.rows, layer.outputs}, kType));
    case Pass::kInputGradient:
      return call(Transpose::kNo, operands.Noise({layer.rows, layer.outputs}, kType),
                  Transpose::kNo, operands.Noise({layer.outputs, layer.inputs}, kType),
                  operands.Poisoned({layer.rows, layer.inputs}, kType));
    case Pass::kWeightGradient:
      return call(Transpose::kYes, operands.Noise({layer.rows, layer.outputs}, kType),
                  Transpose::kNo, operands.Noise({layer.rows, layer.inputs}, kType),
                  operands.Poisoned({layer.outputs, layer.inputs}, DType::kF32));
  }
  return {};
}

KernelCase ProductCase(const Layer& layer, Pass pass) {
  const double multiply_adds = static_cast<double>(layer.rows) *
                               static_cast<double>(layer.outputs) *
                               static_cast<double>(layer.inputs);
  return {.kernel = Name(pass),
          .shape = layer.shape,
          .dtype = DType::kBF16,
          .work = {.flops = 2 * multiply_adds, .bytes = 0},
          .make = [layer, pass](Context& ctx, Operands& operands) {
            return MakeCall(layer, pass, ctx, operands);
          }};
}

}  // namespace

std::vector<KernelCase> ProductKernels(const ModelShape& model) {
  const std::array layers = {
      Layer{model.name + " qkv", model.tokens, 3 * model.width, model.width},
      Layer{model.name + " attention_out", model.tokens, model.width, model.width},
      Layer{model.name + " gate_up", model.tokens, 2 * model.ffn_width, model.width},
      Layer{model.name + " down", model.tokens, model.width, model.ffn_width},
      Layer{model.name + " head", model.head_rows, model.columns, model.width},
  };
  std::vector<KernelCase> cases;
  for (const Layer& layer : layers) {
    for (const Pass pass : kPasses) {
      cases.push_back(ProductCase(layer, pass));
    }
  }
  return cases;
}

KernelCase SquareProduct(int64_t size) {
  KernelCase square = ProductCase({std::to_string(size) + "^3", size, size, size}, Pass::kForward);
  square.kernel = "gemm";
  return square;
}

}  // namespace panthera::bench
